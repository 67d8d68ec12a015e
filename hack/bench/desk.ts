import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#crds/kit/clock.ts';
import type { Desired, DesiredVm } from '#crds/wire/desired.ts';
import { makeFleet } from '#operator/fleet/fleet.ts';
import { serveAgents } from '#operator/fleet/server.ts';
import { type RealNode, startRealNode } from '../bed/realnode.ts';
import { until } from '../bed/until.ts';
import { ensureKeys, pairOf } from '../stack/keys.ts';
import { wantedKeys } from '../stack/servers.ts';

/**
 * The real agent with real QEMU, and at the other end of its wire a desk that commands it: the operator's own session, without
 * an API server. So what is measured begins with the frames.
 */
export type Desk = AsyncDisposable & {
  node: RealNode;
  /** Says at once what the node shall hold. */
  want: (objects: readonly Desired[]) => void;
  /** Has these ended, and waits until nothing is left of them. */
  end: (objects: readonly Desired[]) => Promise<void>;
  /** Waits until each of these VMs is said to run, or image to be ready. */
  reached: (objects: readonly Desired[]) => Promise<void>;
};

const name = 'node-1';
const keysMs = 60_000;
const reachedMs = 300_000;
const aDayMs = 24 * 3600 * 1000;

/** Opens a desk and starts its agent; resolves when that has joined and its QEMU is proved. Needs root and QEMU. */
export const openDesk = async (): Promise<Desk> => {
  await using opened = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'strato-desk-'));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  await ensureKeys(folder, wantedKeys, AbortSignal.timeout(keysMs));
  const { cert, key } = pairOf(folder, 'operator');
  const fleet = makeFleet(systemClock.monotonicMs);
  const server = opened.use(await serveAgents({
    fleet, monotonicMs: systemClock.monotonicMs, now: systemClock.now, log: { info: () => {}, warn: () => {} },
    tls: async () => ({ cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') }),
    admit: async () => ({ leaderEpoch: 1 }), leads: () => true, heard: () => {},
    reviewToken: async () => ({ node: name, nodeUid: name, expiresAt: new Date(Date.now() + aDayMs) }),
  }, { host: '127.0.0.1', port: 0 }));
  const node = opened.use(await startRealNode({ authority: pairOf(folder, 'ca').cert, token: async () => 'token' }, `https://127.0.0.1:${server.port}`));
  await node.joined();
  await until('the agent to prove its QEMU', () => (fleet.member(name).facts?.accelerators ?? []).length > 0, reachedMs);
  // Waiting for the report itself: a poll would be part of what is measured.
  const heard = new EventEmitter();
  const report = (): void => void heard.emit('report');
  fleet.listen({ vm: report, image: report, node: report });
  const isReached = ({ kind, uid }: Desired): boolean => {
    const it = fleet.member(name);
    return kind === 'vm' ? it.vms.get(uid)?.state === 'running' : it.images.get(uid)?.state === 'ready';
  };
  const all = opened.move();
  return {
    node,
    want: (objects) => { for (const object of objects) fleet.want(name, object); },
    end: async (objects) => {
      for (const { uid, kind } of objects) fleet.doom(name, uid, kind);
      await until('all of it to end', () => objects.every(({ uid }) => fleet.isAbsent(name, uid)), reachedMs);
    },
    reached: async (objects) => {
      const signal = AbortSignal.timeout(reachedMs);
      while (!objects.every(isReached)) await once(heard, 'report', { signal });
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
};

/** A small VM as the operator asks for it, with one disk from an image. */
export const deskVm = (vm: string, imageUid: string): DesiredVm => {
  const uid = randomUUID();
  return {
    kind: 'vm', uid, namespace: 'bench', name: vm, generation: 1, epoch: 1, uuid: uid, powerState: 'Running', cpus: 1, memoryMiB: 32,
    disks: [{ name: 'root', imageUid }], interfaces: [], cloudInit: { hostname: vm, sshAuthorizedKeys: [] }, stop: { mode: 'Force', gracePeriodSeconds: 0 },
  };
};
