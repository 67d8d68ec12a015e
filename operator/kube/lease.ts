import { z } from 'zod';
import { jittered } from '#crds/kit/backoff.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { isConflict, isNotFound, type Kube } from './kube.ts';
import { microTime } from './microtime.ts';
import { compareVersions, leases, pathOf } from './resource.ts';

/** The part of a Lease that an election reads. */
export type LeaseView = { version: string; holder: string; transitions: number; durationMs: number };

const lease = z.object({
  metadata: z.object({ resourceVersion: z.string() }),
  spec: z.object({
    holderIdentity: z.string().nullish(),
    leaseTransitions: z.number().nullish(),
    leaseDurationSeconds: z.number().nullish(),
  }).nullish(),
});

/** Reads a Lease that came from the API server. */
export const parseLease = (raw: unknown): LeaseView => {
  const { metadata, spec } = lease.parse(raw);
  return {
    version: metadata.resourceVersion,
    holder: spec?.holderIdentity ?? '',
    transitions: spec?.leaseTransitions ?? 0,
    durationMs: (spec?.leaseDurationSeconds ?? 0) * 1_000,
  };
};

/**
 * Whether `me` may take the Lease: nobody holds it, I held it in a former life, or its holder has not touched it for its duration
 * *by our own monotonic clock since we first saw this version* (clocks of machines are never compared). Pure. Source: client-go leaderelection.
 */
export const mayTake = (seen: LeaseView, me: string, unchangedMs: number, ourDurationMs: number): boolean =>
  seen.holder === '' || seen.holder === me || unchangedMs >= Math.max(seen.durationMs, ourDurationMs);

/** What an election needs. `identity` must be new for every start of a process unless no two of them can overlap. */
export type LeaseOptions = {
  kube: Kube;
  namespace: string;
  name: string;
  identity: string;
  clock: Clock;
  chance: () => number;
  log: Log;
  /** Gives up waiting; once the Lease is held, `release` ends it. */
  signal: AbortSignal;
  /** Others may take the Lease after this; 15 s. */
  durationMs?: number;
  /** Pause between renewals; 2 s, so that one request which is never answered (5 s) costs no lead. Source: client-go, leaderelection. */
  renewMs?: number;
  /** Without a renewal for this long the leadership is lost; 10 s. Less than `durationMs`, so that two never overlap. */
  renewDeadlineMs?: number;
  /** Called once when the leadership is lost: stop commanding at once. */
  onLost?: (why: string) => void;
  /** The version of the Lease that this process last knew. */
  since?: string | undefined;
  /** The Lease is older than one that we knew: the cluster was restored to an older state. */
  onHistoryWentBack?: () => void;
};

/** A held Lease. */
export type Leadership = AsyncDisposable & {
  /** The leaderEpoch: the Lease's transition count, raised at every acquisition. Nothing else changes it. */
  epoch: () => number;
  /** The version that the Lease has by our last update. */
  version: () => string;
  /** Whether it is held at this very moment, by the clock: ask before each command, timers may be late. */
  holds: () => boolean;
  /** Aborted when the Lease is lost or released. */
  signal: AbortSignal;
  /**
   * Resolves after an update of the Lease that began after this call: nobody else held it when this was called. Calls that come
   * before that update begins share it. Faults: LeaseLost, KubeFault.
   */
  confirm: () => Promise<void>;
  /** Gives the Lease back, so that the next one need not wait. */
  release: () => Promise<void>;
};

const retry = { baseMs: 1_000, maxMs: 3_000 };
// The count is an int32, and an update above that is refused for ever. Source: k8s.io/api/coordination/v1 LeaseSpec.
const maxTransitions = 2 ** 31 - 1;

/** The count of the next lead. One that can't rise begins anew: agents are commanded above what they have seen anyway. */
const nextTransitions = (transitions: number): number => (transitions < maxTransitions ? transitions + 1 : 1);

/** Waits until this process holds the Lease, then keeps it renewed. Throws only when `signal` aborts. Source: design.md 4; client-go leaderelection. */
export const takeLease = async (options: LeaseOptions): Promise<Leadership> => {
  const { kube, namespace, name, identity, clock, chance, log, signal } = options;
  const durationMs = options.durationMs ?? 15_000;
  const path = pathOf(leases, { namespace, name });
  let seen: LeaseView | undefined;
  let seenAtMs = 0;
  let trouble: string | undefined;
  let { since } = options;
  for (;;) {
    signal.throwIfAborted();
    try {
      const now = await readLease(kube, path, signal);
      if (now === undefined) return keep(options, path, clock.monotonicMs(), await create(options, durationMs));
      if (since !== undefined && compareVersions(now.version, since) < 0) options.onHistoryWentBack?.();
      since = now.version;
      if (seen?.version !== now.version) {
        if (seen?.holder !== now.holder) log.info({ lease: name, holder: now.holder }, 'waiting for the lease');
        seen = now;
        seenAtMs = clock.monotonicMs();
      }
      if (mayTake(now, identity, clock.monotonicMs() - seenAtMs, durationMs)) {
        const spec = { ...times(clock), acquireTime: microTime(clock.now()), holderIdentity: identity, leaseDurationSeconds: durationMs / 1_000, leaseTransitions: nextTransitions(now.transitions) };
        return keep(options, path, clock.monotonicMs(), await patchLease(kube, path, now.version, spec, signal));
      }
    } catch (thrown) {
      if (!isConflict(thrown) && messageOf(thrown) !== trouble && !signal.aborted) {
        trouble = messageOf(thrown);
        log.warn({ lease: name, cause: trouble }, 'the lease can not be taken yet');
      }
    }
    await clock.sleep(jittered(retry, 1, chance()), signal);
  }
};

const times = (clock: Clock) => ({ renewTime: microTime(clock.now()) });

const requestMs = 5_000;

const readLease = async (kube: Kube, path: string, signal?: AbortSignal): Promise<LeaseView | undefined> => {
  try {
    return parseLease(await kube.request('GET', path, { signal, deadlineMs: requestMs }));
  } catch (thrown) {
    if (isNotFound(thrown)) return undefined;
    throw thrown;
  }
};

const patchLease = async (kube: Kube, path: string, version: string, spec: Record<string, unknown>, signal?: AbortSignal): Promise<LeaseView> =>
  parseLease(
    await kube.request('PATCH', path, { body: { metadata: { resourceVersion: version }, spec }, contentType: 'application/merge-patch+json', signal, deadlineMs: requestMs }),
  );

const create = async ({ kube, namespace, name, identity, clock, signal }: LeaseOptions, durationMs: number): Promise<LeaseView> => {
  const spec = { ...times(clock), acquireTime: microTime(clock.now()), holderIdentity: identity, leaseDurationSeconds: durationMs / 1_000, leaseTransitions: 1 };
  const body = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace }, spec };
  return parseLease(await kube.request('POST', pathOf(leases, { namespace }), { body, signal, deadlineMs: requestMs }));
};

const keep = ({ kube, name, identity, clock, log, onLost, onHistoryWentBack, renewMs = 2_000, renewDeadlineMs = 10_000 }: LeaseOptions, path: string, sentMs: number, taken: LeaseView): Leadership => {
  const over = new AbortController();
  let held = taken;
  // Counted from before the request was sent: the server may have stored it right then, and from that moment the others wait.
  let renewedMs = sentMs;
  let turn: Promise<unknown> = Promise.resolve();
  /** A confirmation that has not begun. */
  let confirming: Promise<void> | undefined;

  const lose = (why: string): void => {
    if (over.signal.aborted) return;
    over.abort(new Fault('LeaseLost', `lease ${name}: ${why}`));
    log.warn({ lease: name, epoch: held.transitions, why }, 'leadership lost');
    onLost?.(why);
  };
  const runOut = (): void => lose(`not renewed for ${renewDeadlineMs / 1_000} s`);
  /** One writer at a time: renewals build on each other's version. */
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = turn.then(() => {
      over.signal.throwIfAborted();
      return work();
    });
    turn = mine.catch(() => {});
    return mine;
  };
  const update = async (): Promise<void> => {
    const startMs = clock.monotonicMs();
    for (let attempt = 0; ; attempt += 1) {
      try {
        held = await patchLease(kube, path, held.version, times(clock), over.signal);
        break;
      } catch (thrown) {
        if (isNotFound(thrown)) lose('it was deleted');
        if (!isConflict(thrown) || attempt > 0) throw thrown;
        const now = await readLease(kube, path, over.signal);
        if (now !== undefined && compareVersions(now.version, held.version) < 0) onHistoryWentBack?.();
        // Somebody may have annotated it; ours it is only while holder and count are as we left them.
        if (now === undefined) lose('it was deleted');
        else if (now.holder !== identity || now.transitions !== held.transitions) lose(`${now.holder || 'nobody'} holds it`);
        else held = now;
        over.signal.throwIfAborted();
      }
    }
    renewedMs = startMs;
  };

  const renew = async (): Promise<void> => {
    for (;;) {
      await clock.sleep(clock.monotonicMs() - renewedMs < renewMs ? renewMs : retry.baseMs, over.signal);
      await inTurn(update).catch((thrown: unknown) => {
        if (!over.signal.aborted) log.warn({ lease: name, cause: messageOf(thrown) }, 'the lease was not renewed');
      });
    }
  };
  const expire = async (): Promise<void> => {
    for (let leftMs = renewDeadlineMs; leftMs > 0; leftMs = renewedMs + renewDeadlineMs - clock.monotonicMs()) await clock.sleep(leftMs, over.signal);
    runOut();
  };
  renew().catch(() => {}); // both end by `over`
  expire().catch(() => {});
  log.info({ lease: name, epoch: held.transitions }, 'leading');

  const release = async (): Promise<void> => {
    if (over.signal.aborted) return;
    await turn;
    over.abort(new Fault('LeaseLost', `lease ${name}: released`));
    await patchLease(kube, path, held.version, { ...times(clock), holderIdentity: null, leaseDurationSeconds: 1 }).catch((thrown: unknown) => {
      log.warn({ lease: name, cause: messageOf(thrown) }, 'the lease was not given back; it runs out by itself');
    });
  };
  return {
    epoch: () => held.transitions,
    version: () => held.version,
    holds: () => {
      // After a stall this may be asked before the timer: what was begun for this lead ends now.
      if (clock.monotonicMs() - renewedMs >= renewDeadlineMs) runOut();
      return !over.signal.aborted;
    },
    signal: over.signal,
    confirm: () => (confirming ??= inTurn(() => {
      confirming = undefined;
      return update();
    })),
    release,
    [Symbol.asyncDispose]: release,
  };
};
