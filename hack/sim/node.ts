import { randomUUID } from 'node:crypto';
import { systemClock } from '#crds/kit/clock.ts';
import { type Log, quiet } from '#crds/kit/log.ts';
import { type Agent, startAgent } from '#agent/agent.ts';
import { type Dial, makeDial, type Socket } from '#agent/link/dial.ts';
import { type LinkTimes, linkTimes } from '#agent/link/link.ts';
import { makeFakeGuests } from '#agent/guest/fake.ts';
import { makeFakeNetwork } from '#agent/network/fake.ts';
import { endRun } from '#agent/hypervisor/fake.ts';
import { type NodeWorld, nodeWorld, openBench } from '#agent/vm/bed.ts';
import { makeFakeShelf } from '#agent/vm/fakeshelf.ts';
import type { RunEnd } from '#agent/hypervisor/driver.ts';

/** How a simulated node reaches its operator. */
export type SimUplink = { url: string; caFile: string; token: () => Promise<string> };

/** What a simulated node may be given. `world` is that of an earlier agent of the node: what it ran runs on. */
export type SimOptions = SimUplink & {
  name: string;
  agentId?: string;
  world?: SimWorld;
  cpus?: number;
  memoryMiB?: number;
  times?: Partial<LinkTimes>;
  log?: Log;
};

/** What outlives an agent of the node: disks, machines, ledger, images. */
export type SimWorld = NodeWorld & { watchers: Set<(uid: string) => void> };

/** The real agent on a pretend node: fakes for QEMU, disks, network and images, everything else as in production. */
export type SimNode = AsyncDisposable & {
  name: string;
  world: SimWorld;
  agent: Agent;
  /** Uids of the machines that run now. */
  running: () => string[];
  /** How often QEMU was started, for one uid or all. */
  starts: (uid?: string) => number;
  /** The guest's run ends, as by its own power-off or a crash. */
  endGuest: (uid: string, cause: RunEnd['cause'], over?: Partial<RunEnd>) => void;
  /** While mute nothing comes or goes, and the connection stays open: as under SIGSTOP or a cut cable. Frames wait. */
  mute: (on: boolean) => void;
  /** Cuts the connection; the agent dials again by itself. */
  cut: () => void;
  /** Ends the agent; the world goes on. */
  stop: () => Promise<void>;
};

/** Quick times, so that a test sees a reconnect at once. */
const quickTimes: LinkTimes = { ...linkTimes, tickMs: 50, heartbeatMs: 200, reconnect: { baseMs: 50, maxMs: 500 } };

/** The times of a real agent. */
export const realTimes = linkTimes;

/** A node that was never used. */
export const simWorld = (): SimWorld => ({ ...nodeWorld(), watchers: new Set() });

/** Starts the real agent on a pretend node and has it dial its operator over TLS. Give it the `world` of an earlier one to play a restart. */
export const startSimNode = async (options: SimOptions): Promise<SimNode> => {
  const { name, world = simWorld(), log = quiet } = options;
  // The bench makes hands for the world; its ledger is thrown away, the agent opens its own.
  const { hands, storage } = await openBench(world);
  const wire = gate(makeDial({ url: options.url, caFile: options.caFile }));
  const agent = await startAgent({
    agentId: options.agentId ?? `agent-of-${name}`,
    node: { agentVersion: 'sim', kernel: 'sim', os: 'sim', architecture: 'amd64', bootId: 'boot-1', cpus: options.cpus ?? 64, memoryMiB: options.memoryMiB ?? 65_536 },
    unixIds: { min: 200_000, max: 201_000 },
    hypervisor: {
      ...hands.hypervisor,
      watch: (changed) => {
        world.watchers.add(changed);
        return { [Symbol.dispose]: () => void world.watchers.delete(changed) };
      },
    },
    network: makeFakeNetwork(),
    storage,
    images: world.images,
    guests: makeFakeGuests,
    shelf: makeFakeShelf(world.shelf),
    dial: wire.dial,
    token: options.token,
    clock: systemClock, hostMs: systemClock.monotonicMs, newId: randomUUID, chance: Math.random,
    log, times: { ...quickTimes, ...options.times },
  });
  let stopped: Promise<void> | undefined;
  const stop = () => (stopped ??= agent.stop());
  return {
    name, world, agent,
    running: () => [...world.machine.machines].filter(([, { run }]) => run?.guest === 'running').map(([uid]) => uid),
    starts: (uid) => world.machine.starts.filter((each) => uid === undefined || each.uid === uid).length,
    endGuest: (uid, cause, over) => {
      endRun(world.machine, uid, cause, over);
      for (const watcher of world.watchers) watcher(uid);
    },
    mute: wire.mute,
    cut: wire.cut,
    stop,
    [Symbol.asyncDispose]: stop,
  };
};

/** A dial whose sockets can be muted and cut. */
const gate = (dial: Dial): { dial: Dial; mute: (on: boolean) => void; cut: () => void } => {
  let muted = false;
  let waiting: (() => void)[] = [];
  let open: Socket | undefined;
  const pass = (frame: () => void): void => {
    if (muted) waiting.push(frame);
    else frame();
  };
  return {
    dial: async (token, ears, signal) => {
      const socket = await dial(token, { message: (text) => pass(() => ears.message(text)), closed: (why) => pass(() => ears.closed(why)) }, signal);
      open = { ...socket, send: (text, sent) => pass(() => socket.send(text, sent)) };
      return open;
    },
    mute: (on) => {
      muted = on;
      if (on) return;
      const frames = waiting;
      waiting = [];
      for (const frame of frames) frame();
    },
    cut: () => open?.close(1000, 'cut by the test'),
  };
};
