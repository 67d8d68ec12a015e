import { randomUUID } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { openCgroups } from '#agent/hypervisor/qemu/cgroup.ts';
import type { Hypervisor } from '#agent/hypervisor/driver.ts';
import type { Paths } from '#agent/host/paths.ts';
import { openTestWeb } from '#agent/image/web/testweb.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { startApart } from '../bed/apart.ts';
import { vmManifest } from '../bed/objects.ts';
import { until } from '../bed/until.ts';
import { bootSectorImage } from '../guest/bootsector.ts';
import { processesBelow } from '../history/proc.ts';
import { bareStart, endBare, makeBareDisks, nowMs, openHypervisor, prepareBare, resumedMs } from './bare.ts';
import { type Desk, deskVm, openDesk } from './desk.ts';
import { atMost, beside, type Figure, quantile } from './figure.ts';
import { type Looped, runLoop } from './loop.ts';

const machines = 50;
const rounds = 5;
const limitMs = 300_000;
const readyText = 'BURST up';
const wide = join(import.meta.dirname, 'wide.mjs');

/** When the last guest of all said that it is up, and when the last one first ran; in milliseconds since the beginning, or of the Unix epoch. */
type Reached = { upMs: number; resumedMs: number };

/**
 * A burst: 50 VMs, whose boot sector prints and halts, by the agent from the receipt of the frames, against a shell loop over
 * the same 50 launcher command lines whose disks were made beforehand; in turns. Beside it, the same 50 applied to an API server.
 *
 * The clock stops when the last guest has printed. It does not stop at the last `cont`: the loop says all of those at its end, so that
 * the work of its guests would not count, while the agent has each guest run as soon as it can.
 */
export const benchBurst = async (tell: (doing: string) => void): Promise<Figure[]> => {
  const strato: Reached[] = [];
  const loop: Reached[] = [];
  {
    await using desk = await openDesk();
    const image = await withImage(desk);
    using ending = new DisposableStack();
    const hypervisor = await openHypervisor(desk.node.paths, ending);
    for (let round = 0; round < rounds; round += 1) {
      tell(`burst: round ${round + 1} of ${rounds}`);
      const one = await oneRound(desk, image, hypervisor);
      tell(`burst: the agent ${told(one.strato)}, the shell loop ${told(one.loop)}`);
      strato.push(one.strato);
      loop.push(one.loop);
    }
  }
  const applied: number[] = [];
  for (let round = 0; round < 2; round += 1) {
    tell(`burst: applied to an API server, ${round + 1} of 2`);
    applied.push((await applyAll()).upMs);
  }
  const median = (of: readonly Reached[], key: keyof Reached): number => quantile(of.map((each) => each[key]), 0.5);
  return [
    atMost('burst', `${machines} VMs, receipt of the frames to all up, over a shell loop, medians`, median(strato, 'upMs') / median(loop, 'upMs'), '', 1.2),
    beside('burst', `${machines} VMs, receipt of the frames to the last \`cont\`, over a shell loop that says all of those at its end, medians`, median(strato, 'resumedMs') / median(loop, 'resumedMs'), ''),
    beside('burst', `${machines} VMs, receipt of the frames to all up, median`, median(strato, 'upMs'), 'ms'),
    beside('burst', `${machines} VMs, apply to all up`, quantile(applied, 0.5), 'ms'),
  ];
};

const told = ({ upMs, resumedMs }: Reached): string => `${Math.round(upMs)} ms (last \`cont\` after ${Math.round(resumedMs)})`;

const withImage = async (desk: Desk): Promise<DesiredImage> => {
  const web = await openTestWeb();
  try {
    const image: DesiredImage = {
      kind: 'image', uid: randomUUID(), namespace: 'bench', name: 'sector', generation: 1, format: 'raw', url: web.serve('/sector.raw', { is: 'bytes', bytes: Buffer.from(bootSectorImage(readyText)) }),
    };
    desk.want([image]);
    await desk.reached([image]);
    return image;
  } finally {
    await web.close();
  }
};

const oneRound = async (desk: Desk, image: DesiredImage, hypervisor: Hypervisor): Promise<{ strato: Reached; loop: Reached }> => {
  const signal = AbortSignal.timeout(limitMs);
  const { paths } = desk.node;
  const vms = Array.from({ length: machines }, (_, at) => deskVm(`burst-${at}`, image.uid));
  const sinceMs = nowMs();
  desk.want(vms);
  await desk.reached(vms);
  const strato = await lastUp(paths, vms.map(({ uid }) => uid), sinceMs);
  const launchers = await launcherLines(paths);
  const bare = await Promise.all(vms.map(({ uid }) => prepareTwin(paths, uid, launchers.get(uid), signal)));
  await desk.end(vms);

  const loopSinceMs = nowMs();
  await runLoop(bare, signal);
  const loop = await lastUp(paths, bare.map(({ uid }) => uid), loopSinceMs);
  for (const { uid } of bare) await endBare(hypervisor, paths, uid, signal);
  return { strato, loop };
};

/** Waits until each guest has printed that it is up, its last word, which the file system dates. */
const lastUp = async (paths: Paths, uids: readonly string[], sinceMs: number): Promise<Reached> => {
  await until('every guest to be up', async () => {
    for (const uid of uids) if (!(await readFile(paths.serialLog(uid), 'utf8').catch(() => '')).includes(readyText)) return false;
    return true;
  }, limitMs);
  const up = await Promise.all(uids.map(async (uid) => (await stat(paths.serialLog(uid))).mtimeMs));
  const resumed = await Promise.all(uids.map((uid) => resumedMs(paths.vm(uid))));
  return { upMs: Math.max(...up) - sinceMs, resumedMs: Math.max(...resumed.map((ms) => ms ?? Number.NaN)) - sinceMs };
};

/** The command lines of the launchers that run now, by the uids of their VMs. */
const launcherLines = async (paths: Paths): Promise<Map<string, string[]>> => {
  const found = new Map<string, string[]>();
  for (const { pid, uid } of processesBelow(paths.vms)) {
    const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0').slice(0, -1);
    if (argv[3] === 'strato-machine') found.set(uid, argv);
  }
  return found;
};

/** Everything that the launcher of another VM needs to run just like this one's, and its command line. */
const prepareTwin = async (paths: Paths, uid: string, argv: readonly string[] | undefined, signal: AbortSignal): Promise<Looped & { uid: string }> => {
  // DIR RUN STARTID UNIXID come after the text and the name.
  const [startId, unixId] = argv?.slice(6, 8) ?? [];
  if (!argv || startId === undefined || unixId === undefined) throw new Error(`VM ${uid} has no launcher`);
  const twin = { paths, uid: randomUUID(), unixId: Number(unixId) };
  await makeBareDisks(twin, join(paths.disks(uid), 'root.base'), 'burst.base', 1, signal);
  await prepareBare(twin);
  await (await openCgroups()).make(twin.uid);
  return { uid: twin.uid, run: paths.run(twin.uid, bareStart), argv: argv.map((each) => each.replaceAll(uid, twin.uid).replaceAll(startId, bareStart)) };
};

/** From the first apply to the last guest that runs, by the whole of Strato. */
const applyAll = async (): Promise<Reached> => {
  await using all = await startApart({ image: { name: 'sector', bytes: bootSectorImage(readyText) }, env: { NODE_OPTIONS: `--import=${wide}` } });
  const names = Array.from({ length: machines }, (_, at) => `burst-${at}`);
  const sinceMs = nowMs();
  await Promise.all(names.map((name) => all.me.apply(vmManifest(name, { memory: { size: '32Mi' } }, 'default', 'sector'))));
  const vms = await Promise.all(names.map((name) => all.me.vmIs(name, 'Ready=True Running', limitMs)));
  return await lastUp(all.node.paths, vms.map(({ metadata: { uid } }) => uid), sinceMs);
};
