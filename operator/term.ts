import { setMaxListeners } from 'node:events';
import { orAborted } from '#crds/kit/aborted.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { jittered } from '#crds/kit/backoff.ts';
import { asFault, Fault, messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { readClusterId } from './clusterid.ts';
import { authenticate } from './fleet/auth.ts';
import { epochFor } from './fleet/epoch.ts';
import { serveAgents } from './fleet/server.ts';
import { makeHeartbeats } from './kube/heartbeat.ts';
import type { Kube, Lanes } from './kube/kube.ts';
import { type Leadership, type LeaseOptions, takeLease } from './kube/lease.ts';
import { ensureNode, judgeIdentity } from './node/admit.ts';
import { type House, startOperator } from './operator.ts';
import { noPast, noteNewest, noteWentBack, type Past } from './past.ts';
import { awaitSchemas } from './schema.ts';
import type { TimedStep } from './vm/guest.ts';

/** What an operator is made of; everything comes in by hand. */
export type TermParts = {
  kube: Kube;
  lanes: Lanes;
  /** The operator's own namespace. */
  namespace: string;
  /** New for every process; every term of this process takes the Lease under it. */
  identity: string;
  /** How events name this process: its pod. */
  instance: string;
  log: Log;
  clock: Clock;
  chance: () => number;
  /** Reads the certificate and key that agents see, PEM; read again and again, since they are renewed while we live. */
  tls: () => Promise<{ cert: string; key: string }>;
  agentListen: { host: string; port: number };
  signal: AbortSignal;
  /** A VM has come a step further for the first time. */
  stepTaken?: (step: TimedStep) => void;
  leaseTimes?: Pick<LeaseOptions, 'durationMs' | 'renewMs' | 'renewDeadlineMs'>;
};

/** What is going on in this moment of a term. */
export type Term = {
  house: House;
  /** The port that agents connect to. */
  port: number;
  /** Caches are complete and the CRDs are not older than this build. Followers are ready too. */
  ready: () => boolean;
  /** The epoch of our lead; undefined while we do not lead. */
  leaderEpoch: () => number | undefined;
};

/**
 * One term: starts with empty caches and an empty memory of the fleet, follows, leads, and ends when the lead is lost, the cluster was
 * restored to an older state, or `signal` aborts. Nothing that it knew goes into the next term: what was wanted or doomed is decided
 * anew from the API, and a restored history never carries out a tombstone of the one before. But that there was another history (`past`) does:
 * nodes may hold what the API has forgotten. Rejects only for what a new term would not mend.
 *
 *   starting -> following -> leading -> ended
 */
const serveTerm = async (parts: TermParts, past: Past, tell: (term: Term | undefined) => void): Promise<void> => {
  const { kube, namespace, clock, chance, log } = parts;
  const ending = new AbortController();
  const signal = AbortSignal.any([parts.signal, ending.signal]);
  // Every loop, watch and request of the term listens to it; that is no leak.
  setMaxListeners(0, signal);
  const end = (why: string): void => {
    if (!signal.aborted) log.warn({ why }, 'this term ends');
    ending.abort(new Fault('TermEnded', why));
  };
  let lease: Leadership | undefined;
  let house: House | undefined;
  /** What we know is of a history that is no more. */
  let stale = false;
  let schemasFit = false;
  const led = Promise.withResolvers<void>();
  const leaderEpoch = (): number | undefined => (lease?.holds() === true && !signal.aborted ? lease.epoch() : undefined);
  try {
    const clusterId = await patiently(parts, signal, 'read the cluster id', () => readClusterId(kube, namespace, signal));
    const here = startOperator({
      kube, clusterId, instance: parts.instance, log, clock, chance, signal, leading: led.promise,
      mayWrite: () => leaderEpoch() !== undefined,
      stepTaken: parts.stepTaken ?? (() => {}),
      past,
      onHistoryWentBack: () => {
        stale = true;
        end('the history of the cluster went back');
      },
    });
    house = here;
    const beats = makeHeartbeats({ kube, namespace, clock });
    await using agents = await serveAgents({
      fleet: here.fleet, monotonicMs: clock.monotonicMs, now: clock.now, log, tls: parts.tls, leads: () => leaderEpoch() !== undefined,
      reviewToken: (token, left) => authenticate(parts.lanes.reviews, namespace, token, left ? AbortSignal.any([signal, left]) : signal),
      admit: async (hello, node) => {
        const admission = judgeIdentity(await ensureNode(kube, node, signal), hello.agentId);
        if (admission.is === 'conflict') return { refused: 'IdentityConflict', message: admission.message };
        const ours = leaderEpoch();
        if (ours === undefined || lease === undefined) return notLeader;
        const { leaderEpoch: theirs, fence } = epochFor(here.fleet.member(node).spoke, hello, ours);
        if (fence) {
          await lease.confirm();
          log.warn({ node, leaderEpoch: theirs, ours }, 'the agent has seen a higher epoch than ours: it is commanded above it');
        }
        return leaderEpoch() === undefined ? notLeader : { leaderEpoch: theirs };
      },
      heard: (node) => { beats.beat(node, signal).catch((error: unknown) => { if (!signal.aborted) log.warn({ node, why: messageOf(error) }, 'lease of the node not renewed'); }); },
    }, parts.agentListen);
    log.info({ port: agents.port }, 'serving agents');
    tell({ house: here, port: agents.port, leaderEpoch, ready: () => schemasFit && here.hasSynced() });
    await orAborted(here.synced, signal);
    await awaitSchemas({ kube, clock, log, signal, onVerdict: (fit) => { schemasFit = fit; } });
    lease = await takeLease({
      kube: parts.lanes.lease, namespace, name: 'strato-operator', identity: parts.identity, clock, chance, log, signal, ...parts.leaseTimes,
      onLost: (why) => end(`leadership lost: ${why}`),
      since: past.newest.get('lease'),
      onHistoryWentBack: () => {
        log.warn({}, 'the lease is older than it was: the cluster was restored to an older state');
        // Before the lead our caches are of the restored history already.
        if (lease === undefined) return noteWentBack(past);
        stale = true;
        end('the history of the cluster went back');
      },
    });
    await using _lead = lease;
    log.info({ leaderEpoch: lease.epoch(), clusterId }, 'leading');
    led.resolve();
    await here.stopped;
  } catch (thrown) {
    if (!signal.aborted) throw thrown;
  } finally {
    ending.abort(new Fault('TermEnded', 'over'));
    tell(undefined);
    if (stale) noteWentBack(past);
    else {
      house?.handOver();
      noteNewest(past, 'lease', lease?.version());
    }
  }
};

const notLeader = { refused: 'NotLeader', message: 'this operator does not lead' } as const;

/** Tries again, with a pause, what fails for lack of an API server. */
const patiently = async <T>({ clock, chance, log }: TermParts, signal: AbortSignal, doing: string, work: () => Promise<T>): Promise<T> => {
  let said = '';
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (thrown) {
      const fault = asFault(thrown, 'StartFailed', doing);
      if (signal.aborted || fault.retry === 'never') throw fault;
      if (said !== fault.message) log.warn({ code: fault.code, cause: fault.message }, `can not ${doing} yet`);
      said = fault.message;
      await clock.sleep(jittered({ baseMs: 250, maxMs: 10_000 }, attempt, chance()), signal);
    }
  }
};

/** An operator that runs until its signal aborts. */
export type RunningOperator = {
  /** The term of this moment; undefined between two. */
  term: () => Term | undefined;
  /** Resolves when the last term has ended after an abort; rejects when no term can be. */
  stopped: Promise<void>;
};

/** Runs one term after the other until `signal` aborts. */
export const runOperator = (parts: TermParts): RunningOperator => {
  let term: Term | undefined;
  const past = noPast();
  const run = async (): Promise<void> => {
    while (!parts.signal.aborted) {
      await serveTerm(parts, past, (now) => { term = now; });
      await parts.clock.sleep(250, parts.signal).catch(() => {}); // a term that ends at once must not spin
    }
  };
  return { term: () => term, stopped: run() };
};
