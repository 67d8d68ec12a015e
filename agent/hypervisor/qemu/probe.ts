import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { delimiter, join } from 'node:path';
import { access, constants, readFile } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { patience } from '#crds/kit/patience.ts';
import { runTool } from '../../host/exec.ts';
import { platform } from '../../host/platform.ts';
import { writeWhole } from '../../storage/durable.ts';
import type { Accelerator, Architecture } from '../driver.ts';
import { boards } from './board.ts';
import { type Probed, runGuest } from './probeguest.ts';

const verdictVersion = 3;
const askMs = 20_000;
const cpuListBytes = 16 * 1024 * 1024;

/** How long a probe guest may take: one of an accelerator, also after that of software emulation has ended; and the latter. */
type ProbeTimes = { guestMs: number; controlMs: number };
const usualTimes: ProbeTimes = { guestMs: 15_000, controlMs: 120_000 };

/** What was found out about QEMU for guests of one architecture. `type` is its newest machine, by its versioned name. */
export type BoardVerdict = { program: string; type: string; accelerators: readonly Accelerator[]; cpuModels: readonly string[] };

/**
 * What was found out about the QEMU of this node; `host` is the node's own architecture, `wanted` what shall
 * accelerate guests there.
 */
export type Verdict = { version: string; host: Architecture; wanted: Accelerator | null; boards: Partial<Record<Architecture, BoardVerdict>> };

const accelerator = z.enum(['kvm', 'hvf', 'tcg']);
const verdictForm = z.strictObject({
  version: z.literal(verdictVersion), bootId: z.string(), digest: z.string(),
  verdict: z.strictObject({
    version: z.string(), host: z.enum(['amd64', 'arm64']), wanted: accelerator.nullable(),
    boards: z.partialRecord(z.enum(['amd64', 'arm64']), z.strictObject({ program: z.string(), type: z.string(), accelerators: z.array(accelerator), cpuModels: z.array(z.string()) })),
  }),
});

/** Why a guest of an architecture runs by software emulation; undefined when it does not. Pure. */
export const whyEmulated = ({ host, wanted, boards: found }: Verdict, architecture: Architecture): string | undefined => {
  if (found[architecture]?.accelerators[0] !== 'tcg') return undefined;
  if (architecture !== host) return `the guest is ${architecture} and the node is ${host}`;
  return wanted === null ? `enable_${platform.accelerator} is false in the configuration of the agent` : `a probe guest did not run under ${wanted.toUpperCase()} on this node`;
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
 * one boot of the node and the same programs. What was not found out in time is found out anew by the next agent. Faults: QemuUnusable, when no
 * guest of the node's own architecture runs. Rejects with the signal's reason when cut off.
 */
export const proveQemu = async (
  { programs, host, bootId, wanted, verdictFile, times = usualTimes }: { programs: Programs; host: Architecture; bootId: string; wanted: Accelerator | null; verdictFile: string; times?: ProbeTimes },
  signal: AbortSignal,
): Promise<Verdict> => {
  const digest = (await Promise.all(Object.values(programs).map(digestOfFile))).sort().join(' ');
  const known = await readFile(verdictFile, 'utf8').then((text) => verdictForm.safeParse(JSON.parse(text)), () => undefined);
  if (known?.success && known.data.bootId === bootId && known.data.digest === digest && known.data.verdict.wanted === wanted) return known.data.verdict;
  const found: Verdict['boards'] = {};
  let version = '';
  let certain = true;
  for (const architecture of ['amd64', 'arm64'] as const) {
    const program = programs[architecture];
    if (program === undefined) continue;
    const looked = await proveBoard(program, architecture, architecture === host ? wanted : null, times, signal);
    certain &&= looked.certain;
    if (architecture === host) version = looked.version;
    if (looked.board.accelerators.length > 0) found[architecture] = looked.board;
  }
  if (!found[host]) throw new Fault('QemuUnusable', `${programs[host] ?? 'QEMU'} did not run a probe guest, not even by software emulation${certain ? '' : `, within ${times.controlMs / 1000} s`}`);
  const verdict = { version, host, wanted, boards: found };
  if (!certain) return verdict;
  const text = `${JSON.stringify({ version: verdictVersion, bootId, digest, verdict })}\n`;
  await writeWhole(verdictFile, { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }, (handle) => handle.writeFile(text))
    // What can not be kept (a full disk, a read-only one) is found out anew by the next agent.
    .catch(() => {});
  return verdict;
};

const proveBoard = async (
  program: string, architecture: Architecture, wanted: Accelerator | null, times: ProbeTimes, signal: AbortSignal,
): Promise<{ version: string; board: BoardVerdict; certain: boolean }> => {
  const { version, type } = await askQemu(program, architecture, signal);
  const probed = await probeAccelerators((each, limit) => runGuest(program, architecture, type, each, limit, signal), wanted, times);
  const accelerators = [...probed].flatMap(([each, how]) => (how === 'ran' ? [each] : []));
  const [best] = accelerators;
  return { version, board: { program, type, accelerators, cpuModels: best === undefined ? [] : await askCpuModels(program, type, best, signal) }, certain: probed.get('tcg') !== 'late' };
};

/**
 * Runs a probe guest under each accelerator, the best first. A guest that hangs is how a broken accelerator shows, and a machine that is busy
 * shows so too: the guest under software emulation, which runs beside it, tells them apart.
 */
const probeAccelerators = async (run: (accelerator: Accelerator, limit: AbortSignal) => Promise<Probed>, wanted: Accelerator | null, { guestMs, controlMs }: ProbeTimes): Promise<Map<Accelerator, Probed>> => {
  const control = run('tcg', patience(controlMs));
  if (wanted === null || wanted === 'tcg') return new Map([['tcg', await control]]);
  const late = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const [guest, after] = [run(wanted, late.signal), control.finally(() => { timer = setTimeout(() => late.abort(), guestMs).unref(); })];
  try {
    const [best, how] = await Promise.all([guest, after]);
    return new Map([[wanted, best], ['tcg', how]]);
  } finally {
    clearTimeout(timer);
    late.abort();
  }
};

const digestOfFile = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
};

/** Its version, and the newest machine that it makes. */
const askQemu = async (qemu: string, architecture: Architecture, signal: AbortSignal): Promise<{ version: string; type: string }> => {
  try {
    const limit = { signal: AbortSignal.any([signal, patience(askMs)]) };
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
  const { stdout } = await runTool(qemu, args, { input, signal: AbortSignal.any([signal, patience(askMs)]), maxBytes: cpuListBytes });
  for (const line of stdout.split('\n').filter((each) => each.includes('"name"'))) {
    const said = cpuDefinitions.safeParse(JSON.parse(line));
    if (!said.success) continue;
    const whole = said.data.return.filter(({ name, 'unavailable-features': lacks }) => (lacks ?? []).length === 0 && (name !== 'host' || under !== 'tcg'));
    return whole.map(({ name }) => name).filter((name) => modelName.test(name)).sort().slice(0, 512);
  }
  throw new Fault('QemuUnusable', `${qemu} does not tell its CPU models`);
};

const modelName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
