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
import type { Accelerator, Architecture } from '../driver.ts';
import { cpuModelOf } from './args.ts';
import { boards } from './board.ts';

const verdictVersion = 2;
const probeMs = 15_000;
const askMs = 20_000;
const cpuListBytes = 16 * 1024 * 1024;
const toldByGuest = 0x2a;

/** What was found out about QEMU for guests of one architecture. `type` is its newest machine, by its versioned name. */
export type BoardVerdict = { program: string; type: string; accelerators: readonly Accelerator[]; cpuModels: readonly string[] };

/** What was found out about the QEMU of this node; `host` is the node's own architecture. */
export type Verdict = { version: string; host: Architecture; kvmWanted: boolean; boards: Partial<Record<Architecture, BoardVerdict>> };

const accelerator = z.enum(['kvm', 'hvf', 'tcg']);
const verdictForm = z.strictObject({
  version: z.literal(verdictVersion), bootId: z.string(), digest: z.string(),
  verdict: z.strictObject({
    version: z.string(), host: z.enum(['amd64', 'arm64']), kvmWanted: z.boolean(),
    boards: z.partialRecord(z.enum(['amd64', 'arm64']), z.strictObject({ program: z.string(), type: z.string(), accelerators: z.array(accelerator), cpuModels: z.array(z.string()) })),
  }),
});

/** Why a guest of an architecture runs by software emulation; undefined when it does not. Pure. */
export const whyEmulated = ({ host, kvmWanted, boards: found }: Verdict, architecture: Architecture): string | undefined => {
  if (found[architecture]?.accelerators[0] !== 'tcg') return undefined;
  if (architecture !== host) return `the guest is ${architecture} and the node is ${host}`;
  return kvmWanted ? 'a probe guest did not run under KVM on this node' : 'enable_kvm is false in the configuration of the agent';
};

/** Where a program lies, looked up in PATH. Fault QemuMissing. */
export const findProgram = async (name: string, path: string): Promise<string> => {
  for (const folder of path.split(delimiter).filter((each) => each.startsWith('/'))) {
    const file = join(folder, name);
    if (await access(file, constants.X_OK).then(() => true, () => false)) return file;
  }
  throw new Fault('QemuMissing', `${name} is not in PATH; install QEMU (Debian: qemu-system-x86)`, { retry: 'never' });
};

/** The QEMU programs of a node, by the architecture of their guests. */
export type Programs = Partial<Record<Architecture, string>>;

/**
 * Finds out what the QEMU programs of a node can do by running probe guests, or reads the verdict of an earlier look: it holds for
 * one boot of the node and the same programs. Faults: QemuUnusable, when no guest of the node's own architecture runs. Rejects with
 * the signal's reason when cut off.
 */
export const proveQemu = async (
  { programs, host, bootId, kvmWanted, verdictFile }: { programs: Programs; host: Architecture; bootId: string; kvmWanted: boolean; verdictFile: string },
  signal: AbortSignal,
): Promise<Verdict> => {
  const digest = (await Promise.all(Object.values(programs).map(digestOfFile))).sort().join(' ');
  const known = await readFile(verdictFile, 'utf8').then((text) => verdictForm.safeParse(JSON.parse(text)), () => undefined);
  if (known?.success && known.data.bootId === bootId && known.data.digest === digest && known.data.verdict.kvmWanted === kvmWanted) return known.data.verdict;
  const found: Verdict['boards'] = {};
  let version = '';
  for (const architecture of ['amd64', 'arm64'] as const) {
    const program = programs[architecture];
    if (program === undefined) continue;
    const looked = await proveBoard(program, architecture, kvmWanted && architecture === host, signal);
    if (architecture === host) version = looked.version;
    if (looked.board.accelerators.length > 0) found[architecture] = looked.board;
  }
  if (!found[host]) throw new Fault('QemuUnusable', `${programs[host] ?? 'QEMU'} did not run a probe guest, not even by software emulation`);
  const verdict = { version, host, kvmWanted, boards: found };
  const text = `${JSON.stringify({ version: verdictVersion, bootId, digest, verdict })}\n`;
  await writeWhole(verdictFile, { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }, (handle) => handle.writeFile(text))
    // What can not be kept (a full disk, a read-only one) is found out anew by the next agent.
    .catch(() => {});
  return verdict;
};

const proveBoard = async (program: string, architecture: Architecture, kvmWanted: boolean, signal: AbortSignal): Promise<{ version: string; board: BoardVerdict }> => {
  const { version, type } = await askQemu(program, architecture, signal);
  const accelerators: Accelerator[] = [];
  // There is a probe guest for amd64 alone; for others KVM is not claimed, and that QEMU makes the machine is the proof.
  const candidates = kvmWanted && architecture === 'amd64' ? (['kvm', 'tcg'] as const) : (['tcg'] as const);
  for (const each of candidates) if (architecture !== 'amd64' || (await runsGuest(program, type, each, signal))) accelerators.push(each);
  const [best] = accelerators;
  return { version, board: { program, type, accelerators, cpuModels: best === undefined ? [] : await askCpuModels(program, type, best, signal) } };
};

const digestOfFile = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
};

/** Its version, and the newest machine that it makes. */
const askQemu = async (qemu: string, architecture: Architecture, signal: AbortSignal): Promise<{ version: string; type: string }> => {
  try {
    const limit = { signal: AbortSignal.any([signal, AbortSignal.timeout(askMs)]) };
    const [{ stdout: version }, { stdout: machines }] = await Promise.all([runTool(qemu, ['-version'], limit), runTool(qemu, ['-machine', 'help'], limit)]);
    const found = { version: /version (\d+\.\d+\.\d+)/.exec(version)?.[1], type: boards[architecture].newest.exec(machines)?.[1] };
    return z.object({ version: z.string(), type: z.string() }).parse(found);
  } catch (cause) {
    signal.throwIfAborted();
    throw new Fault('QemuUnusable', `${qemu} does not tell its version and its machines: ${messageOf(cause)}`, { cause });
  }
};

const cpuDefinitions = z.object({ return: z.array(z.object({ name: z.string(), 'unavailable-features': z.array(z.string()).optional() })) });

/** CPU models of which an accelerator can show everything. Source: QAPI query-cpu-definitions. */
const askCpuModels = async (qemu: string, type: string, under: Accelerator, signal: AbortSignal): Promise<string[]> => {
  const input = ['qmp_capabilities', 'query-cpu-definitions', 'quit'].map((execute) => `${JSON.stringify({ execute })}\n`).join('');
  const args = ['-nodefaults', '-no-user-config', '-display', 'none', '-machine', type, '-accel', under, '-cpu', 'max', '-m', '64M', '-S', '-qmp', 'stdio'];
  const { stdout } = await runTool(qemu, args, { input, signal: AbortSignal.any([signal, AbortSignal.timeout(askMs)]), maxBytes: cpuListBytes });
  for (const line of stdout.split('\n').filter((each) => each.includes('"name"'))) {
    const said = cpuDefinitions.safeParse(JSON.parse(line));
    if (!said.success) continue;
    const whole = said.data.return.filter(({ name, 'unavailable-features': lacks }) => (lacks ?? []).length === 0 && (name !== 'host' || under !== 'tcg'));
    return whole.map(({ name }) => name).filter((name) => modelName.test(name)).sort().slice(0, 512);
  }
  throw new Fault('QemuUnusable', `${qemu} does not tell its CPU models`);
};

const modelName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

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
