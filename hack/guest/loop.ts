const diskBytes = 1024 * 1024;

/**
 * A raw boot disk of 1 MiB whose guest prints dots on COM1 for ever: one each tick of the clock (18.2 a second), so that one can see that it lives,
 * or as many as the port takes (`flood`). It hears nothing. 16-bit code as a PC BIOS starts it, at 0000:7c00 (see bootsector.ts).
 */
export const loopImage = (how: 'tick' | 'flood'): Uint8Array => {
  const disk = new Uint8Array(diskBytes);
  disk.set([
    0xea, 0x05, 0x7c, 0x00, 0x00,  //       jmp 0000:7c05
    0x31, 0xc0,                    //       xor ax, ax
    0x8e, 0xd8,                    //       mov ds, ax
    0xfb,                          // next: sti      @0x09
    how === 'tick' ? 0xf4 : 0x90,  //       hlt, or nothing
    0xba, 0xfd, 0x03,              //       mov dx, 0x3fd
    0xec,                          //       in al, dx
    0xa8, 0x20,                    //       test al, 0x20
    0x74, 0xf6,                    //       jz next
    0xb2, 0xf8,                    //       mov dl, 0xf8
    0xb0, 0x2e,                    //       mov al, '.'
    0xee,                          //       out dx, al
    0xeb, 0xef,                    //       jmp next
  ]);
  disk.set([0x55, 0xaa], 510);
  return disk;
};
