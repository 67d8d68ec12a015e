import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { openTestWeb } from '#agent/image/web/testweb.ts';
import { randomUUID } from 'node:crypto';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { bootSectorImage } from '../guest/bootsector.ts';
import { isQemu } from '../history/events.ts';
import { processesBelow } from '../history/proc.ts';
import { type Desk, deskVm, openDesk } from './desk.ts';
import { atMost, beside, type Figure, quantile } from './figure.ts';

const machines = 50;
const rounds = 3;
// Long enough for some passes over every VM and for the collector to have been there.
const settleMs = 45_000;
const samples = 10;

/**
 * What one more VM costs the node beside its QEMU: the growth of the agent from no VM to 50, and the supervisors, in proportional
 * set size (shared pages are shared out). Each round begins with no VM again, so that what a first burst leaves behind in the
 * agent's heap is not taken for the cost of VMs.
 */
export const benchMemory = async (tell: (doing: string) => void): Promise<Figure[]> => {
  await using desk = await openDesk();
  const web = await openTestWeb();
  const image: DesiredImage = {
    kind: 'image', uid: randomUUID(), namespace: 'bench', name: 'sector', generation: 1, format: 'raw', url: web.serve('/sector.raw', { is: 'bytes', bytes: Buffer.from(bootSectorImage('up')) }),
  };
  desk.want([image]);
  await desk.reached([image]);
  await web.close();
  await warmUp(desk, image);
  const perVm: number[] = [];
  const supervisors: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const before = await settledMiB(desk);
    const vms = Array.from({ length: machines }, (_, at) => deskVm(`memory-${at}`, image.uid));
    desk.want(vms);
    await desk.reached(vms);
    const after = await settledMiB(desk);
    const watching = (await Promise.all(processesBelow(desk.node.paths.vms).filter(({ program }) => !isQemu(program)).map(({ pid }) => pssMiB(pid)))).reduce((sum, each) => sum + each, 0);
    tell(`memory: round ${round + 1} of ${rounds}: the agent ${before.toFixed(1)} MiB, with ${machines} VMs ${after.toFixed(1)} MiB; their supervisors ${watching.toFixed(1)} MiB`);
    perVm.push((after - before + watching) / machines);
    supervisors.push(watching / machines);
    await desk.end(vms);
  }
  return [
    atMost('memory', `agent and supervisor, growth per VM over 0 to ${machines} VMs`, quantile(perVm, 0.5), 'MiB', 1),
    beside('memory', 'of which supervisor', quantile(supervisors, 0.5), 'MiB'),
  ];
};

/** Code is compiled and pools are filled at the first use of everything. */
const warmUp = async (desk: Desk, image: DesiredImage): Promise<void> => {
  const vms = Array.from({ length: machines }, (_, at) => deskVm(`warm-${at}`, image.uid));
  desk.want(vms);
  await desk.reached(vms);
  await desk.end(vms);
};

/** The memory of the agent and of the shell that holds its lock, the median of some looks after it came to rest. */
const settledMiB = async ({ node }: Desk): Promise<number> => {
  await delay(settleMs);
  const agent = node.agent().pid ?? 0;
  const seen: number[] = [];
  for (let look = 0; look < samples; look += 1) {
    seen.push(await pssMiB(agent) + await childrenMiB(agent));
    await delay(500);
  }
  return quantile(seen, 0.5);
};

/** Proportional set size of a process; 0 when it has ended. Source: proc(5), smaps_rollup. */
const pssMiB = async (pid: number): Promise<number> =>
  Number(/^Pss:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => ''))?.[1] ?? 0) / 1024;

/** Children of the agent that are no machines: these have a session and a directory of their own. */
const childrenMiB = async (parent: number): Promise<number> => {
  let sum = 0;
  for (const task of await readdir(`/proc/${parent}/task`)) {
    for (const pid of (await readFile(`/proc/${parent}/task/${task}/children`, 'utf8').catch(() => '')).split(' ').filter((each) => each !== '')) {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (!command.includes('\0strato-machine\0')) sum += await pssMiB(Number(pid));
    }
  }
  return sum;
};
