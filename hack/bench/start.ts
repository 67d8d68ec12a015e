import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Hypervisor } from '#agent/hypervisor/driver.ts';
import { testGuestReady } from '#agent/hypervisor/testguest.ts';
import { vmManifest } from '../bed/objects.ts';
import { startWhole, type Whole } from '../bed/whole.ts';
import { ensureGuest } from '../guest/guest.ts';
import { tellProgress } from '../stack/report.ts';
import { type Bare, endBare, launchBare, makeBareDisks, nowMs, openHypervisor, prepareBare, resumedMs } from './bare.ts';
import { atMost, type Figure, quantile } from './figure.ts';

const limitMs = 180_000;
// Often enough for a guest that boots for seconds; QEMU itself dates `cont`. More often would take time from who is measured.
const pollMs = 20;
const bareUnixId = 290_000;

/** Milliseconds of one start: until the guest's first instruction, and until it says that it is up. */
type Times = { contMs: number; readyMs: number };
type Kind = { image: string; memory: string; marker: string; sizeMiB: number };

/**
 * Case C02: what Strato adds to a start, against the bare launcher with the same command line, in turns in the same run.
 * From apply to `cont` with a boot sector, whose start is all there is; to the guest's word with a small Linux.
 */
export const benchStart = async (tell: (doing: string) => void): Promise<Figure[]> => {
  await using all = await startWhole();
  const { disk } = await ensureGuest(tellProgress(tell));
  const url = all.web.serve('/linux.qcow2', { is: 'bytes', bytes: await readFile(disk) });
  await all.me.apply({
    apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'linux', namespace: 'default' },
    spec: { source: { http: { url } }, format: 'qcow2' },
  });
  const { status } = await all.me.imageIs('linux', 'Ready=True Ready', limitMs);
  if (status.digest === undefined) throw new Error('the image has no digest');
  using ending = new DisposableStack();
  const hypervisor = await openHypervisor(all.node.paths, ending);
  const sector = await rounds(all, hypervisor, { image: 'guest', memory: '32Mi', marker: testGuestReady, sizeMiB: 1 }, 30, tell);
  const linux = await rounds(all, hypervisor, { image: 'linux', memory: '256Mi', marker: 'STRATO ready', sizeMiB: 64 }, 9, tell);
  const added = sector.map(({ strato, bare }) => strato.contMs - bare.contMs);
  const median = (each: 'strato' | 'bare') => quantile(linux.map((round) => round[each].readyMs), 0.5);
  return [
    atMost('start', 'added from apply to cont, P50', quantile(added, 0.5), 'ms', 60),
    atMost('start', 'added from apply to cont, P95', quantile(added, 0.95), 'ms', 150),
    atMost('start', 'apply to ready over bare launcher to ready, medians', median('strato') / median('bare'), '', 1.1),
  ];
};

type Round = { strato: Times; bare: Times };

const rounds = async (all: Whole, hypervisor: Hypervisor, kind: Kind, count: number, tell: (doing: string) => void): Promise<Round[]> => {
  const done: Round[] = [];
  for (let round = 0; round < count; round += 1) {
    tell(`${kind.image}: round ${round + 1} of ${count}`);
    done.push(await oneRound(all, hypervisor, kind, `bench-${kind.image}-${round}`));
  }
  return done;
};

const oneRound = async ({ me, node }: Whole, hypervisor: Hypervisor, kind: Kind, name: string): Promise<Round> => {
  const signal = AbortSignal.timeout(limitMs);
  const { paths } = node;
  const sinceMs = nowMs();
  await me.apply(vmManifest(name, { memory: { size: kind.memory } }, 'default', kind.image));
  const { uid } = (await me.vm(name)).metadata;
  const strato = await watchStart(paths.vm(uid), kind.marker, sinceMs, signal);
  const own = (await node.qemus()).find((each) => each.uid === uid);
  if (!own) throw new Error(`VM ${name} has no QEMU`);

  const bareUid = randomUUID();
  const bare: Bare = { paths, uid: bareUid, unixId: bareUnixId, command: own.command.map((each) => each.replaceAll(uid, bareUid)) };
  await makeBareDisks(bare, join(paths.disks(uid), 'root.base'), `bench-${kind.image}.base`, kind.sizeMiB, signal);
  await me.deleteVm(name);
  await me.vmGone(name, limitMs);
  await prepareBare(bare);
  const bareSinceMs = nowMs();
  const launched = launchBare(bare, signal);
  const times = await watchStart(paths.vm(bareUid), kind.marker, bareSinceMs, signal);
  await launched;
  await endBare(hypervisor, paths, bareUid, signal);
  return { strato, bare: times };
};

/** Both ways are watched alike: QEMU's own record says when the guest ran, its console when it was up. */
const watchStart = async (directory: string, marker: string, sinceMs: number, signal: AbortSignal): Promise<Times> => {
  let readyMs: number | undefined;
  for (;;) {
    if (readyMs === undefined && (await readFile(join(directory, 'serial.log'), 'utf8').catch(() => '')).includes(marker)) readyMs = nowMs() - sinceMs;
    if (readyMs !== undefined) {
      const contMs = await resumedMs(directory);
      if (contMs !== undefined) return { contMs: contMs - sinceMs, readyMs };
    }
    await delay(pollMs, undefined, { signal });
  }
};
