import type { Clock } from '#crds/kit/clock.ts';
import { canonical } from '#crds/kit/digest.ts';
import { messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { patience } from '#crds/kit/patience.ts';
import type { Paths } from '../host/paths.ts';
import type { Hypervisor, NodePort } from '../hypervisor/driver.ts';
import type { GuestRun, Guests, GuestSight } from './driver.ts';
import { askGuest } from './facts.ts';
import { lineOf, probeGuest, type Readiness } from './probe.ts';
import { type GuestAgent, openGuestAgent } from './qga.ts';
import { makeSerialScan } from './serialscan.ts';

/** How often a guest is looked into: while it comes up, and when all of it is known. */
const oftenMs = 2_000;
const seldomMs = 30_000;
/** A guest without an agent is asked seldom after this long. */
const comesUpMs = 300_000;
const lookMs = 5_000;
/** How long a guest has to take plugged CPUs on line before it is said that some are not. */
const cpusGraceMs = 10_000;

/** Kinds of probes that stay true for the rest of the run. */
const latches = new Set(['serialPattern', 'cloudInitDone']);

type Sources = { scan: ReturnType<typeof makeSerialScan> | undefined; agent: GuestAgent | undefined; established: Hypervisor['established'] };
type Lane = { run: GuestRun; key: string; sight: GuestSight; end: AbortController };

/** What looking into real guests needs. `changed` is called when something else is seen than before; `established` is that of the hypervisor. */
export type GuestsOptions = { established: Hypervisor['established']; paths: Pick<Paths, 'sockets' | 'serialLog' | 'guestAgentSocket'>; clock: Clock; log: Log; changed: (uid: string) => void };

/** Looks into real guests: by the QEMU guest agent, the record of the serial console, and TCP. Ends with the signal. */
export const makeGuests = ({ established, paths, clock, log, changed }: GuestsOptions, signal: AbortSignal): Guests => {
  const lanes = new Map<string, Lane>();
  let syncId = 0;

  const look = async ({ run }: Lane, scan: ReturnType<typeof makeSerialScan> | undefined, before: GuestSight, limit: AbortSignal): Promise<GuestSight> => {
    const agent = await openGuestAgent(paths.guestAgentSocket(run.uid), (syncId += 1), AbortSignal.any([limit, patience(lookMs)])).catch(() => undefined);
    try {
      const info = agent ? await askGuest(agent).catch(() => before.info) : before.info;
      const ready = run.probe ? await readiness(run, before.ready, { scan, agent, established }, limit) : undefined;
      return { startId: run.startId, ...(info ? { info } : {}), ...(ready ? { ready } : {}) };
    } finally {
      agent?.[Symbol.dispose]();
    }
  };

  const work = async (lane: Lane): Promise<void> => {
    const { run, end } = lane;
    const limit = AbortSignal.any([signal, end.signal]);
    const pattern = lineOf(run.probe);
    const scan = pattern === undefined ? undefined : makeSerialScan(paths.serialLog(run.uid), pattern);
    const sinceMs = clock.monotonicMs();
    const comesUp = () => clock.monotonicMs() - sinceMs < cpusGraceMs;
    while (!limit.aborted) {
      try {
        const seen = await look(lane, scan, lane.sight, limit);
        if (limit.aborted) return;
        const sight = comesUp() ? withoutIdleCpus(seen, run.cpus) : seen;
        const differs = canonical(sight) !== canonical(lane.sight);
        lane.sight = sight;
        if (differs) changed(run.uid);
      } catch (thrown) {
        if (!limit.aborted) log.warn({ uid: run.uid, err: messageOf(thrown) }, 'a guest can not be looked into');
      }
      const known = lane.sight.info !== undefined || clock.monotonicMs() - sinceMs > comesUpMs;
      const probed = run.probe === undefined || lane.sight.ready?.is === true;
      await clock.sleep(known && probed && !isLive(run) && !comesUp() ? seldomMs : oftenMs, limit).catch(() => {});
    }
  };

  return {
    follow: (run) => {
      const key = canonical(run);
      const before = lanes.get(run.uid);
      if (before?.key === key) return;
      before?.end.abort();
      const lane: Lane = { run, key, sight: stillSeen(before, run), end: new AbortController() };
      lanes.set(run.uid, lane);
      void work(lane);
    },
    leave: (uid) => {
      lanes.get(uid)?.end.abort();
      lanes.delete(uid);
    },
    observe: (uid) => lanes.get(uid)?.sight,
  };
};

/** What was seen of a run and still holds when it is looked into anew: how many CPUs are on line, only as long as it has the same ones. Pure. */
const stillSeen = (before: Lane | undefined, run: GuestRun): GuestSight => {
  if (before?.run.startId !== run.startId) return { startId: run.startId };
  const { info, ready } = before.sight;
  const sameProbe = canonical(before.run.probe ?? null) === canonical(run.probe ?? null);
  const seen: GuestSight = { startId: run.startId, ...(info ? { info } : {}), ...(ready && sameProbe ? { ready } : {}) };
  return withoutIdleCpus(seen, run.cpus);
};

/** A sight that does not tell how many CPUs are on line when some are not. Pure. */
const withoutIdleCpus = (sight: GuestSight, cpus: number): GuestSight => {
  if (sight.info?.cpusOnline === undefined || sight.info.cpusOnline >= cpus) return sight;
  const { cpusOnline: _, ...info } = sight.info;
  return { ...sight, info };
};

/** A probe that can become false again is asked often. */
const isLive = ({ probe }: GuestRun): boolean => probe !== undefined && !latches.has(probe.is);

const readiness = async (run: GuestRun, before: Readiness | undefined, { established, ...sources }: Sources, limit: AbortSignal): Promise<Readiness | undefined> => {
  if (!run.probe) return undefined;
  if (before?.is === true && latches.has(run.probe.is)) return before;
  const tcp = run.tcp && { ...run.tcp, established: (at: NodePort, signal: AbortSignal) => established(run.uid, at, signal) };
  return probeGuest(run.probe, { ...sources, tcp }, AbortSignal.any([limit, patience(lookMs)]));
};
