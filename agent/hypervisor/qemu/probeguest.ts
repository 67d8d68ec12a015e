import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Accelerator, Architecture } from '../driver.ts';
import { cpuModelOf } from './args.ts';
import { boards } from './board.ts';

const toldByGuest = 0x2a;

/**
 * A boot disk whose guest sleeps until the clock has interrupted it four times and then tells the isa-debug-exit device a
 * number: about a second on anything that really runs guests. A guest that merely executes instructions is no proof: where
 * KVM is broken it is the interrupts or the model-specific registers that fail. SeaBIOS counts ticks at 0040:006c.
 */
const probeDisk = (): Uint8Array => {
  const disk = new Uint8Array(1024 * 1024);
  disk.set([
    0x31, 0xc0,             //       xor ax, ax
    0x8e, 0xd8,             //       mov ds, ax
    0xfb,                   //       sti
    0xa1, 0x6c, 0x04,       //       mov ax, [0x46c]
    0x05, 0x04, 0x00,       //       add ax, 4
    0x89, 0xc3,             //       mov bx, ax
    0xf4,                   // wait: hlt
    0x39, 0x1e, 0x6c, 0x04, //       cmp [0x46c], bx
    0x75, 0xf9,             //       jne wait
    0xb0, toldByGuest,      //       mov al, N
    0xe6, 0xf4,             //       out 0xf4, al
    0xfa,                   // halt: cli
    0xf4,                   //       hlt
    0xeb, 0xfc,             //       jmp halt
  ]);
  disk.set([0x55, 0xaa], 510);
  return disk;
};

/**
 * A kernel for the arm64 board whose guest watches the timer until it has gone on for 2^21 ticks (some hundredths of a second) and then
 * switches the machine off. Interrupts take no part: they would need a driver of the interrupt controller. Source: Arm ARM, D11 (generic timer);
 * Arm DEN0022 (PSCI), SYSTEM_OFF by HVC, as the device tree of `virt` names it.
 */
const probeKernel = (): Uint8Array => new Uint8Array(new Uint32Array([
  0xd53be041, //       mrs x1, cntvct_el0
  0xd53be042, // wait: mrs x2, cntvct_el0
  0xcb010043, //       sub x3, x2, x1
  0xd355fc63, //       lsr x3, x3, #21
  0xb4ffffa3, //       cbz x3, wait
  0x52800100, //       mov w0, #0x8
  0x72b08000, //       movk w0, #0x8400, lsl #16
  0xd4000002, //       hvc #0
  0x14000000, // halt: b halt
]).buffer);

/** How the probe guest of each architecture is run in its folder, and the exit code of QEMU by which it tells that it ran. */
const guests: Readonly<Record<Architecture, { file: string; content: () => Uint8Array; args: (type: string) => string[]; told: number }>> = {
  amd64: {
    file: 'disk', content: probeDisk,
    args: (type) => ['-machine', type, '-m', '16M', '-drive', 'file=disk,format=raw,if=virtio,snapshot=off', '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x01'],
    // isa-debug-exit: QEMU exits with twice the number, plus one.
    told: toldByGuest * 2 + 1,
  },
  arm64: {
    file: 'kernel', content: probeKernel,
    args: (type) => ['-machine', `${type},${boards.arm64.machine({ firmware: { type: 'bios', secureBoot: false, tpm: false } })}`, '-m', '64M', '-kernel', 'kernel'],
    told: 0,
  },
};

/** What came of a probe guest: it ran, it did not, or it had not told when it was ended. */
export type Probed = 'ran' | 'failed' | 'late';

/**
 * Whether an accelerator runs a guest on the very machine and CPU that a VM gets. The device file of an accelerator proves nothing. The guest is
 * ended when `limit` aborts. Rejects with the reason of `signal`.
 */
export const runGuest = async (qemu: string, architecture: Architecture, type: string, accelerator: Accelerator, limit: AbortSignal, signal: AbortSignal): Promise<Probed> => {
  const { file, content, args, told } = guests[architecture];
  const directory = await mkdtemp(join(tmpdir(), 'strato-probe-'));
  try {
    await writeFile(join(directory, file), content());
    const child = spawn(qemu, [
      '-nodefaults', '-no-user-config', '-display', 'none', '-accel', accelerator, '-cpu', boards[architecture].cpu(cpuModelOf(accelerator), accelerator), ...args(type),
    ], { cwd: directory, stdio: 'ignore' });
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    child.on('exit', resolve).on('error', reject);
    const either = AbortSignal.any([signal, limit]);
    const kill = (): void => void child.kill('SIGKILL');
    either.addEventListener('abort', kill, { once: true });
    if (either.aborted) kill();
    const code = await promise;
    either.removeEventListener('abort', kill);
    signal.throwIfAborted();
    if (code === told) return 'ran';
    return limit.aborted ? 'late' : 'failed';
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};
