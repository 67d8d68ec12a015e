import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { access, constants, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { runTool } from '../../host/exec.ts';
import { writeWhole } from '../../storage/durable.ts';
import type { Accelerator } from '../driver.ts';
import { cpuModelOf } from './args.ts';

const verdictVersion = 1;
const probeMs = 15_000;
const machineTypeMs = 10_000;
const toldByGuest = 0x2a;

/** What was found out about the QEMU of this node. `type` is the newest q35, by its versioned name. */
export type Verdict = { version: string; type: string; accelerators: readonly Accelerator[] };

const verdictForm = z.strictObject({
  version: z.literal(verdictVersion), bootId: z.string(), digest: z.string(), kvmWanted: z.boolean(),
  verdict: z.strictObject({ version: z.string(), type: z.string(), accelerators: z.array(z.enum(['kvm', 'hvf', 'tcg'])) }),
});

/** Where a program lies, looked up in PATH. Fault QemuMissing. */
export const findProgram = async (name: string, path: string): Promise<string> => {
  for (const folder of path.split(delimiter).filter((each) => each.startsWith('/'))) {
    const file = join(folder, name);
    if (await access(file, constants.X_OK).then(() => true, () => false)) return file;
  }
  throw new Fault('QemuMissing', `${name} is not in PATH; install QEMU (Debian: qemu-system-x86)`, { retry: 'never' });
};

/**
 * Finds out what a QEMU can do by running probe guests, or reads the verdict of an earlier look: it holds for one boot of
 * the node and one QEMU binary. Faults: QemuUnusable. Rejects with the signal's reason when cut off.
 */
export const proveQemu = async (
  { qemu, bootId, kvmWanted, verdictFile }: { qemu: string; bootId: string; kvmWanted: boolean; verdictFile: string },
  signal: AbortSignal,
): Promise<Verdict> => {
  const digest = await digestOfFile(qemu);
  const known = await readFile(verdictFile, 'utf8').then((text) => verdictForm.safeParse(JSON.parse(text)), () => undefined);
  if (known?.success && known.data.bootId === bootId && known.data.digest === digest && known.data.kvmWanted === kvmWanted) return known.data.verdict;
  const { version, type } = await askQemu(qemu, signal);
  const accelerators: Accelerator[] = [];
  for (const each of kvmWanted ? (['kvm', 'tcg'] as const) : (['tcg'] as const)) if (await runsGuest(qemu, type, each, signal)) accelerators.push(each);
  if (accelerators.length === 0) throw new Fault('QemuUnusable', `${qemu} did not run a probe guest, not even by software emulation`);
  const verdict = { version, type, accelerators };
  const text = `${JSON.stringify({ version: verdictVersion, bootId, digest, kvmWanted, verdict })}\n`;
  // A verdict that can not be kept is found out anew by the next agent.
  await writeWhole(verdictFile, { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }, (handle) => handle.writeFile(text)).catch(() => {});
  return verdict;
};

const digestOfFile = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
};

/** Its version, and what `q35` means to it. */
const askQemu = async (qemu: string, signal: AbortSignal): Promise<{ version: string; type: string }> => {
  try {
    const limit = { signal: AbortSignal.any([signal, AbortSignal.timeout(machineTypeMs)]) };
    const [{ stdout: version }, { stdout: machines }] = await Promise.all([runTool(qemu, ['-version'], limit), runTool(qemu, ['-machine', 'help'], limit)]);
    const found = { version: /version (\d+\.\d+\.\d+)/.exec(version)?.[1], type: /\(alias of (pc-q35-[\w.+-]+)\)/.exec(machines)?.[1] };
    return z.object({ version: z.string(), type: z.string() }).parse(found);
  } catch (cause) {
    signal.throwIfAborted();
    throw new Fault('QemuUnusable', `${qemu} does not tell its version and its machines: ${messageOf(cause)}`, { cause });
  }
};

/**
 * A boot disk whose guest sleeps until the clock has interrupted it four times and then tells the isa-debug-exit device a
 * number: about a second on anything that really runs guests. A guest that merely executes instructions is no proof: where
 * KVM is broken it is the interrupts or the model-specific registers that fail. SeaBIOS counts ticks at 0040:006c.
 */
export const probeDisk = (): Uint8Array => {
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

/** Whether an accelerator runs a guest on the very machine and CPU that a VM gets. The device file of an accelerator proves nothing. */
const runsGuest = async (qemu: string, type: string, accelerator: Accelerator, signal: AbortSignal): Promise<boolean> => {
  const directory = await mkdtemp(join(tmpdir(), 'strato-probe-'));
  try {
    const disk = join(directory, 'disk');
    await writeFile(disk, probeDisk());
    const child = spawn(qemu, [
      '-nodefaults', '-no-user-config', '-display', 'none', '-machine', type, '-accel', accelerator, '-cpu', cpuModelOf(accelerator), '-m', '16M',
      '-drive', 'file=disk,format=raw,if=virtio,snapshot=off', '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x01',
    ], { cwd: directory, stdio: 'ignore' });
    const { promise, resolve, reject } = Promise.withResolvers<number | null>();
    child.on('exit', resolve).on('error', reject);
    const limit = AbortSignal.any([signal, AbortSignal.timeout(probeMs)]);
    const kill = (): void => void child.kill('SIGKILL');
    limit.addEventListener('abort', kill, { once: true });
    if (limit.aborted) kill();
    // isa-debug-exit: QEMU exits with twice the number, plus one.
    const told = (await promise) === toldByGuest * 2 + 1;
    limit.removeEventListener('abort', kill);
    signal.throwIfAborted();
    return told;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};
