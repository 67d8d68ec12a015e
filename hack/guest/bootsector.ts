import { Fault } from '#crds/kit/fault.ts';

const sectorBytes = 512;
// SeaBIOS does not boot a disk of a single sector (it has no whole cylinder); disks are whole MiB anyway.
const diskBytes = 1024 * 1024;
// Less the code, its final zero, the partition table's place and the boot signature: all that a BIOS may look at.
const textRoom = 400;

/**
 * A raw boot disk of 1 MiB, empty but for its boot sector: prints `text` and a line end on COM1, then halts the CPU for good. It is the guest for
 * bursts. `text` is printable ASCII of at most 400 characters.
 * 16-bit code as a PC BIOS starts it, at 0000:7c00 (Intel SDM vol. 2; 16550 UART: line status 0x3fd, bit 5 = may send).
 * Fault: BootSectorText.
 */
export const bootSectorImage = (text: string): Uint8Array => {
  if (!/^[\x20-\x7e]*$/.test(text) || text.length > textRoom) {
    throw new Fault('BootSectorText', `a boot sector prints at most ${textRoom} printable ASCII characters`, { retry: 'never' });
  }
  const code = [
    0xea, 0x05, 0x7c, 0x00, 0x00, //       jmp 0000:7c05    some BIOSes start at 07c0:0000
    0x31, 0xc0,                   //       xor ax, ax
    0x8e, 0xd8,                   //       mov ds, ax
    0xfc,                         //       cld
    0xbe, 0x27, 0x7c,             //       mov si, text
    0xac,                         // next: lodsb    @0x0d
    0x84, 0xc0,                   //       test al, al
    0x74, 0x11,                   //       jz halt
    0x88, 0xc4,                   //       mov ah, al
    0xba, 0xfd, 0x03,             //       mov dx, 0x3fd
    0xec,                         // busy: in al, dx    @0x17
    0xa8, 0x20,                   //       test al, 0x20
    0x74, 0xfb,                   //       jz busy
    0xb2, 0xf8,                   //       mov dl, 0xf8
    0x88, 0xe0,                   //       mov al, ah
    0xee,                         //       out dx, al
    0xeb, 0xea,                   //       jmp next
    0xfa,                         // halt: cli
    0xf4,                         //       hlt
    0xeb, 0xfc,                   //       jmp halt
  ];
  const disk = new Uint8Array(diskBytes);
  disk.set(code);
  disk.set(new TextEncoder().encode(`${text}\r\n`), code.length);
  disk.set([0x55, 0xaa], sectorBytes - 2);
  return disk;
};
