const loadedAt = 0x7c00;
const sectorBytes = 512;
// SeaBIOS does not boot a disk of a single sector (it has no whole cylinder); disks are whole MiB anyway.
const diskBytes = 1024 * 1024;

/**
 * A raw boot disk of 1 MiB, empty but for its boot sector, which prints `text` and a line end on COM1 and goes on with `after`.
 * 16-bit code as a PC BIOS starts it, at 0000:7c00 (Intel SDM vol. 2; 16550 UART: line status 0x3fd, bit 5 = may send). `text` is ASCII,
 * and has room beside 100 bytes of code.
 */
export const printingDisk = (text: string, after: readonly number[]): Uint8Array => {
  const code = [
    0xea, 0x05, 0x7c, 0x00, 0x00, //       jmp 0000:7c05    some BIOSes start at 07c0:0000
    0x31, 0xc0,                   //       xor ax, ax
    0x8e, 0xd8,                   //       mov ds, ax
    0xfc,                         //       cld
    0xbe, 0x00, 0x00,             //       mov si, text
    0xac,                         // next: lodsb
    0x84, 0xc0,                   //       test al, al
    0x74, 0x11,                   //       jz after
    0x88, 0xc4,                   //       mov ah, al
    0xba, 0xfd, 0x03,             //       mov dx, 0x3fd
    0xec,                         // busy: in al, dx
    0xa8, 0x20,                   //       test al, 0x20
    0x74, 0xfb,                   //       jz busy
    0xb2, 0xf8,                   //       mov dl, 0xf8
    0x88, 0xe0,                   //       mov al, ah
    0xee,                         //       out dx, al
    0xeb, 0xea,                   //       jmp next
    ...after,
  ];
  const disk = new Uint8Array(diskBytes);
  disk.set(code);
  new DataView(disk.buffer).setUint16(textOperand, loadedAt + code.length, true);
  disk.set(new TextEncoder().encode(`${text}\r\n`), code.length);
  disk.set([0x55, 0xaa], sectorBytes - 2);
  return disk;
};

const textOperand = 11;

/** What the guest of the tests prints when it is up. */
export const testGuestReady = 'up';

/** A raw boot disk of 1 MiB whose guest prints `up` on its serial console and powers itself off when it is told `q` there (ACPI PM1a control of QEMU's q35 at 0x604). */
export const testGuest = (): Uint8Array => printingDisk(testGuestReady, [
  0xba, 0xfd, 0x03, // listen: mov dx, 0x3fd
  0xfb,             // poll:   sti
  0xf4,             //         hlt    until the next tick of the clock
  0xec,             //         in al, dx
  0xa8, 0x01,       //         test al, 1
  0x74, 0xf9,       //         jz poll
  0xb2, 0xf8,       //         mov dl, 0xf8
  0xec,             //         in al, dx
  0x3c, 0x71,       //         cmp al, 'q'
  0x75, 0xef,       //         jne listen
  0xba, 0x04, 0x06, //         mov dx, 0x604
  0xb8, 0x00, 0x20, //         mov ax, 0x2000
  0xef,             //         out dx, ax
  0xf4,             // halt:   hlt
  0xeb, 0xfd,       //         jmp halt
]);
