// 16-bit code as a PC BIOS starts it, at 0000:7c00. BIOS disk services: INT 13h extensions (EDD-3); 16550 UART: line status
// 0x3fd; ACPI PM1a of QEMU's q35: status 0x600, enable 0x602, control 0x604; reset control 0xcf9.
const code = [
  0xea, 0x05, 0x7c, 0x00, 0x00,       //         jmp 0000:7c05
  0x31, 0xc0,                         //         xor ax, ax
  0x8e, 0xd8,                         //         mov ds, ax
  0x8e, 0xc0,                         //         mov es, ax
  0x8e, 0xd0,                         //         mov ss, ax
  0xbc, 0x00, 0x7c,                   //         mov sp, 0x7c00
  0xfc,                               //         cld
  0x88, 0xd3,                         //         mov bl, dl        the disk that we came from
  0xba, 0x02, 0x06,                   //         mov dx, 0x602
  0xb8, 0x00, 0x01,                   //         mov ax, 0x100     the power button is noted
  0xef,                               //         out dx, ax
  0xb4, 0x42,                         //         mov ah, 0x42      read the second sector
  0xe8, 0x68, 0x00,                   //         call disk
  0xbf, 0x00, 0x80,                   //         mov di, 0x8000
  0x66, 0x83, 0x3d, 0x00,             //         cmp dword [di], 0
  0x75, 0x07,                         //         jne known
  0x0f, 0x31,                         //         rdtsc             a disk without a mark gets one
  0x0c, 0x01,                         //         or al, 1
  0x66, 0x89, 0x05,                   //         mov [di], eax
  0x66, 0xff, 0x45, 0x04,             // known:  inc dword [di+4]
  0xb8, 0x00, 0x43,                   //         mov ax, 0x4300    write it
  0xe8, 0x4e, 0x00,                   //         call disk
  0xbe, 0xdc, 0x7c,                   //         mov si, "disk "
  0xe8, 0x5a, 0x00,                   //         call puts
  0x66, 0x8b, 0x1d,                   //         mov ebx, [di]
  0xe8, 0x5e, 0x00,                   //         call hex
  0xbe, 0xe2, 0x7c,                   //         mov si, " boot "
  0xe8, 0x4e, 0x00,                   //         call puts
  0x66, 0x8b, 0x5d, 0x04,             //         mov ebx, [di+4]
  0xe8, 0x51, 0x00,                   //         call hex
  0xbe, 0xe9, 0x7c,                   //         mov si, "\r\n"
  0xe8, 0x41, 0x00,                   //         call puts
  0xfb,                               // listen: sti
  0xf4,                               //         hlt               until the next tick of the clock
  0xba, 0x00, 0x06,                   //         mov dx, 0x600
  0xed,                               //         in ax, dx
  0xf6, 0xc4, 0x01,                   //         test ah, 1        the power button
  0x75, 0x1b,                         //         jnz off
  0xba, 0xfd, 0x03,                   //         mov dx, 0x3fd
  0xec,                               //         in al, dx
  0xa8, 0x01,                         //         test al, 1
  0x74, 0xed,                         //         jz listen
  0xb2, 0xf8,                         //         mov dl, 0xf8
  0xec,                               //         in al, dx
  0x3c, 0x71,                         //         cmp al, 'q'
  0x74, 0x0c,                         //         je off
  0x3c, 0x72,                         //         cmp al, 'r'
  0x75, 0xe2,                         //         jne listen
  0xba, 0xf9, 0x0c,                   //         mov dx, 0xcf9
  0xb0, 0x06,                         //         mov al, 6
  0xee,                               //         out dx, al
  0xeb, 0xda,                         //         jmp listen
  0xba, 0x04, 0x06,                   // off:    mov dx, 0x604
  0xb8, 0x00, 0x20,                   //         mov ax, 0x2000
  0xef,                               //         out dx, ax
  0xeb, 0xd1,                         //         jmp listen
  0x88, 0xda,                         // disk:   mov dl, bl
  0xbe, 0xcc, 0x7c,                   //         mov si, packet
  0xcd, 0x13,                         //         int 0x13
  0x72, 0x01,                         //         jc bad
  0xc3,                               //         ret
  0xbe, 0xec, 0x7c,                   // bad:    mov si, "disk failed\r\n"
  0xe8, 0x02, 0x00,                   //         call puts
  0xeb, 0xbf,                         //         jmp listen
  0xac,                               // puts:   lodsb
  0x84, 0xc0,                         //         test al, al
  0x74, 0x1d,                         //         jz done
  0xe8, 0x1b, 0x00,                   //         call putc
  0xeb, 0xf6,                         //         jmp puts
  0xb9, 0x08, 0x00,                   // hex:    mov cx, 8
  0x66, 0xc1, 0xc3, 0x04,             // digit:  rol ebx, 4
  0x88, 0xd8,                         //         mov al, bl
  0x24, 0x0f,                         //         and al, 15
  0x04, 0x30,                         //         add al, '0'
  0x3c, 0x39,                         //         cmp al, '9'
  0x76, 0x02,                         //         jbe say
  0x04, 0x07,                         //         add al, 7
  0xe8, 0x03, 0x00,                   // say:    call putc
  0xe2, 0xeb,                         //         loop digit
  0xc3,                               // done:   ret
  0x88, 0xc4,                         // putc:   mov ah, al
  0xba, 0xfd, 0x03,                   //         mov dx, 0x3fd
  0xec,                               // busy:   in al, dx
  0xa8, 0x20,                         //         test al, 0x20
  0x74, 0xfb,                         //         jz busy
  0xb2, 0xf8,                         //         mov dl, 0xf8
  0x88, 0xe0,                         //         mov al, ah
  0xee,                               //         out dx, al
  0xc3,                               //         ret
  0x10, 0x00, 0x01, 0x00, 0x00, 0x80, 0x00, 0x00, // packet: one sector to or from 0000:8000,
  0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //         that of number 1
];
const texts = 'disk \0 boot \0\r\n\0disk failed\r\n\0';

/** What the guest does when it is told so on its serial console: ends itself, or reboots. */
export const guestKeys = { off: 'q', reboot: 'r' } as const;

/**
 * A raw boot disk of 1 MiB whose guest keeps a diary on it: at each boot it adds one to a count in its second sector, gives the
 * disk a mark if it has none, writes that back, and prints both. So a disk that was made anew, exchanged or set back tells on
 * itself. It heeds the power button and `guestKeys`. SeaBIOS asks for no write cache, so what was printed is in the file.
 */
export const diaryGuest = (): Uint8Array => {
  const disk = new Uint8Array(1024 * 1024);
  disk.set(code);
  disk.set(new TextEncoder().encode(texts), code.length);
  disk.set([0x55, 0xaa], 510);
  return disk;
};

/** One line of the diary: the disk's mark in hex, and how many times it was booted. */
export type Boot = { mark: string; count: number };

/** The boots that a serial console tells of, in their order. Pure. A line that is still being written is left out. */
export const bootsOf = (serial: string): Boot[] =>
  [...serial.matchAll(/disk ([0-9A-F]{8}) boot ([0-9A-F]{8})\r?\n/g)].map(([, mark = '', count = '']) => ({ mark, count: Number.parseInt(count, 16) }));

/** The diary as it lies on a raw disk. Pure. */
export const diarySector = (disk: Buffer): Boot => ({ mark: disk.readUInt32LE(512).toString(16).toUpperCase().padStart(8, '0'), count: disk.readUInt32LE(516) });
