import { printingDisk } from '#agent/hypervisor/testguest.ts';
import { Fault } from '#crds/kit/fault.ts';

// Less the code, its final zero, the partition table's place and the boot signature: all that a BIOS may look at.
const textRoom = 400;

/**
 * A raw boot disk of 1 MiB, empty but for its boot sector: prints `text` and a line end on COM1, then halts the CPU for good. It is the guest for
 * bursts. `text` is printable ASCII of at most 400 characters. Fault: BootSectorText.
 */
export const bootSectorImage = (text: string): Uint8Array => {
  if (!/^[\x20-\x7e]*$/.test(text) || text.length > textRoom) {
    throw new Fault('BootSectorText', `a boot sector prints at most ${textRoom} printable ASCII characters`, { retry: 'never' });
  }
  return printingDisk(text, [
    0xfa,       // halt: cli
    0xf4,       //       hlt
    0xeb, 0xfc, //       jmp halt
  ]);
};
