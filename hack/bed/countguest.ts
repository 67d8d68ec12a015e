// 16-bit code as a PC BIOS starts it, at 0000:7c00 (16550 UART: line status 0x3fd; the clock ticks 18.2 times a second).
const code = [
  0xea, 0x05, 0x7c, 0x00, 0x00, //         jmp 0000:7c05
  0x31, 0xc0,                   //         xor ax, ax
  0x8e, 0xd0,                   //         mov ss, ax
  0xbc, 0x00, 0x7c,             //         mov sp, 0x7c00
  0xfb,                         //         sti
  0x31, 0xed,                   //         xor bp, bp     the seconds
  0xb9, 0x04, 0x00,             // again:  mov cx, 4
  0xc1, 0xc5, 0x04,             // digit:  rol bp, 4
  0x89, 0xe8,                   //         mov ax, bp
  0x24, 0x0f,                   //         and al, 15
  0x3c, 0x0a,                   //         cmp al, 10
  0x1c, 0x69,                   //         sbb al, 0x69
  0x2f,                         //         das            '0' to 'F'
  0xe8, 0x0f, 0x00,             //         call send
  0xe2, 0xef,                   //         loop digit
  0xb0, 0x0a,                   //         mov al, '\n'
  0xe8, 0x08, 0x00,             //         call send
  0x45,                         //         inc bp
  0xb1, 0x12,                   //         mov cl, 18
  0xf4,                         // tick:   hlt
  0xe2, 0xfd,                   //         loop tick
  0xeb, 0xdf,                   //         jmp again
  0x88, 0xc4,                   // send:   mov ah, al
  0xba, 0xfd, 0x03,             //         mov dx, 0x3fd
  0xec,                         // busy:   in al, dx
  0xa8, 0x20,                   //         test al, 0x20
  0x74, 0xfb,                   //         jz busy
  0xb2, 0xf8,                   //         mov dl, 0xf8
  0x88, 0xe0,                   //         mov al, ah
  0xee,                         //         out dx, al
  0xc3,                         //         ret
];

/** A raw boot disk of 1 MiB whose guest counts its seconds aloud on its serial console, in hexadecimal, a line each, from 0000 on. */
export const countGuest = (): Uint8Array => {
  const disk = new Uint8Array(1024 * 1024);
  disk.set(code);
  disk.set([0x55, 0xaa], 510);
  return disk;
};

/** The seconds that such a guest has counted, from the record of its serial console; a line that is not whole yet is left out. Pure. */
export const counted = (serial: string): number[] => [...serial.matchAll(/^([0-9A-F]{4})\n/gm)].map(([, digits]) => Number.parseInt(digits ?? '', 16));
