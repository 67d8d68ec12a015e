import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { toolsSocket } from '#agent/hypervisor/qemu/args.ts';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { until } from '../bed/until.ts';
import { type EventOf, eventsOf, isQemu, monotonicMs, type Standing } from './events.ts';
import { bootsOf, diarySector } from './guest.ts';
import { processesBelow } from './proc.ts';
import type { Record } from './record.ts';
import { readStandings } from './reader.ts';
import type { Stage } from './stage.ts';

const settleMs = 240_000;
const stillMs = 3_000;
// A machine whose supervisor was killed is outlived by the tender of its records, for some naps: init may be slow to bury the dead.
const leftoverMs = 12_000;
const answerMs = 60_000;
const run = promisify(execFile);

/**
 * Waits until every VM stands as declared, or has ended by itself, and does so for some seconds; then looks at everything from
 * all sides and notes it. What has not settled in time is noted as it is: the judge says what is wrong with it.
 */
export const settle = async (stage: Stage, record: Record, name: string, waitForRestartsMs: number): Promise<void> => {
  const { cluster: { kube } } = stage;
  const sinceMs = monotonicMs();
  let text = '';
  let textMs = sinceMs;
  await until('everything to settle', async () => {
    const now = await readStandings(kube);
    const next = JSON.stringify(now);
    if (next !== text) textMs = monotonicMs();
    text = next;
    return now.every((each) => isSettled(each, monotonicMs() - sinceMs > waitForRestartsMs)) && monotonicMs() - textMs > (hasLeftovers(stage) ? leftoverMs : stillMs) && (await guestsAreUp(stage, now));
  }, settleMs).catch(() => {});
  record.note({ is: 'rest', stage: name, ...(await lookAround(stage, record)) });
};

const endings = new Set(['GuestShutdown', 'QemuCrashed']);

/** `impatient`: one that is still to be restarted by its policy is left to wait. */
const isSettled = ({ deleting, generation, observedGeneration, ready, phase, spec, reason, reconciling }: Standing, impatient: boolean): boolean =>
  !deleting && generation === observedGeneration && ((ready === 'True' && phase === spec.powerState) || (ready === 'False' && endings.has(reason) && (impatient || !reconciling)));

/** Whether a process is there of a VM that has no QEMU. */
const hasLeftovers = ({ node }: Stage): boolean => {
  const processes = processesBelow(node.paths.vms);
  const running = new Set(processes.filter(({ program }) => isQemu(program)).map(({ uid }) => uid));
  return processes.some(({ uid }) => !running.has(uid));
};

/** A guest that runs has told of its boot before anything is concluded from its disk. */
const guestsAreUp = async ({ node }: Stage, standings: readonly Standing[]): Promise<boolean> => {
  const running = standings.filter(({ spec, ready }) => spec.powerState === 'Running' && ready === 'True');
  const told = await Promise.all(running.map(async ({ uid }) => bootsOf(await node.serial(uid)).length > 0));
  return told.every(Boolean);
};

const lookAround = async (stage: Stage, record: Record): Promise<Omit<EventOf<'rest'>, 'is' | 't' | 'stage'>> => {
  const { node, cluster } = stage;
  const objects = await until('the API server to answer', () => readStandings(cluster.kube), answerMs);
  const processes = processesBelow(node.paths.vms).map(({ pid, ticks, parent, uid, program }) => ({ pid, ticks, parent, uid, program }));
  const running = new Set(processes.filter(({ program }) => isQemu(program)).map(({ uid }) => uid));
  const guests: EventOf<'rest'>['guests'] = {};
  const diaries: EventOf<'rest'>['diaries'] = {};
  for (const { uid } of objects) {
    if (running.has(uid)) guests[uid] = await askGuest(join(node.paths.sockets(uid), toolsSocket)).catch(() => ({ status: 'silent', memoryMiB: 0, disks: [], nics: 0 }));
    else if (existsSync(join(node.paths.vm(uid), node.paths.diskFile('root')))) diaries[uid] = await readDiary(node.paths.vm(uid), node.paths.diskFile('root'));
  }
  const living = new Set(objects.map(({ uid }) => uid));
  const ever = new Set(eventsOf(record.events(), 'answered').flatMap(({ object }) => object?.uid ?? []));
  const traces: EventOf<'rest'>['traces'] = {};
  for (const uid of ever) if (!living.has(uid)) traces[uid] = await node.traces(uid);
  return { objects, processes, guests, diaries, traces };
};

const status = z.object({ status: z.string() });
const blocks = z.array(z.object({ inserted: z.object({ file: z.string() }).optional() }));
const devices = z.array(z.object({ type: z.string() }));
const memory = z.object({ 'base-memory': z.number(), 'plugged-memory': z.number().optional() });

/** Asks QEMU by the socket that is there for tools; the agent has its own. */
const askGuest = async (socket: string): Promise<EventOf<'rest'>['guests'][string]> => {
  const signal = AbortSignal.timeout(answerMs);
  using qmp = await openQmp(socket, signal);
  const { 'base-memory': base, 'plugged-memory': plugged = 0 } = await qmp.execute('query-memory-size-summary', memory, signal);
  const files = (await qmp.execute('query-block', blocks, signal)).flatMap(({ inserted }) => inserted?.file ?? []);
  const there = await qmp.execute('qom-list', devices, signal, { path: '/machine/peripheral' });
  const nics = there.filter(({ type }) => type === 'child<virtio-net-pci>').length;
  return { status: (await qmp.execute('query-status', status, signal)).status, memoryMiB: (base + plugged) / 2 ** 20, disks: files.flatMap((file) => /([^/"]+)\.qcow2/.exec(file)?.[1] ?? []).toSorted(), nics };
};

/** The diary on a disk that nobody has open. */
const readDiary = async (vm: string, disk: string): Promise<EventOf<'rest'>['diaries'][string]> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-diary-'));
  try {
    const raw = join(folder, 'disk.raw');
    await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', disk, raw], { cwd: vm });
    return diarySector(await readFile(raw));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
};
