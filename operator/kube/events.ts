import { createHash } from 'node:crypto';
import { makeBudget } from '#crds/kit/budget.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { asFault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { isAlreadyExists, type Kube, KubeFault, statusOf } from './kube.ts';
import { microTime } from './microtime.ts';
import { events, pathOf } from './resource.ts';

/** What an event is about. */
export type Regarding = { apiVersion: string; kind: string; name: string; namespace?: string | undefined; uid: string; resourceVersion?: string | undefined };

/** One event: what happened (`reason`, UpperCamelCase), what we were doing (`action`), a sentence for people (`note`). */
export type EventNote = { regarding: Regarding; type: 'Normal' | 'Warning'; reason: string; action: string; note: string };

/** Writes Kubernetes events in the background. */
export type Recorder = {
  /** Never waits and never throws. Said again within ten minutes it is dropped, and so are events beyond the queue. */
  record: (event: EventNote) => void;
  /** Resolves when what was recorded so far is written or given up. */
  flush: () => Promise<void>;
  /** Events that were given up for lack of room or of an API server. */
  lost: () => number;
};

const repeatMs = 10 * 60_000;
const maxRemembered = 4_096;
const maxQueued = 512;
const rate = { perSecond: 5, atOnce: 25 };
const maxTries = 3;
// All events wait behind one that waits: an hour, as a proxy may ask for, would lose those of everybody.
const maxPauseMs = 30_000;

/**
 * Makes a recorder of events.k8s.io/v1 events: at most 5 a second after a burst of 25. `instance` is this process (its pod's name).
 * Source: k8s.io/api/events/v1 Event and its validation (bounds of note, reason and action; events of cluster-scoped objects live in `default`).
 */
export const makeRecorder = (options: { kube: Kube; instance: string; log: Log; clock: Clock; signal: AbortSignal }): Recorder => {
  const { kube, clock, log, signal } = options;
  const said = new Map<string, number>();
  const queue: { body: Record<string, unknown>; path: string }[] = [];
  let working: Promise<void> | undefined;
  let lost = 0;
  const budget = makeBudget(rate, clock.monotonicMs);

  const repeated = (key: string): boolean => {
    const nowMs = clock.monotonicMs();
    const last = said.get(key);
    if (last !== undefined && nowMs - last < repeatMs) return true;
    said.delete(key);
    said.set(key, nowMs);
    // A Map keeps the order of insertion: the first is the oldest.
    for (const [oldest, atMs] of said) {
      if (said.size <= maxRemembered && nowMs - atMs < repeatMs) break;
      said.delete(oldest);
    }
    return false;
  };

  const write = async (path: string, body: unknown): Promise<void> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await kube.request('POST', path, { body, signal, deadlineMs: 10_000 });
        return;
      } catch (thrown) {
        if (isAlreadyExists(thrown)) return;
        const status = statusOf(thrown) ?? 400;
        const passing = status === 0 || status === 429 || status >= 500;
        if (!passing || attempt === maxTries) throw thrown;
        await clock.sleep(thrown instanceof KubeFault ? Math.min(maxPauseMs, Math.max(1_000, thrown.retryAfterMs ?? 0)) : 1_000, signal);
      }
    }
  };

  const drain = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      try {
        const debtMs = budget.spend(1);
        if (debtMs > 0) await clock.sleep(debtMs, signal);
        await write(next.path, next.body);
      } catch (thrown) {
        lost += 1;
        if (!signal.aborted) log.warn({ code: asFault(thrown, 'EventLost', next.path).code, path: next.path }, 'an event was not written');
      }
    }
    working = undefined;
  };

  return {
    record: (event) => {
      if (signal.aborted || repeated(`${event.regarding.uid} ${event.reason} ${event.note}`)) return;
      if (queue.length >= maxQueued) {
        lost += 1;
        return;
      }
      queue.push({ path: pathOf(events, { namespace: namespaceOf(event) }), body: eventBody(event, clock.now(), options.instance) });
      working ??= drain();
    },
    flush: async () => working,
    lost: () => lost,
  };
};

const namespaceOf = ({ regarding }: EventNote): string => regarding.namespace ?? 'default';

/** The event as the API server wants it. Pure. */
export const eventBody = (event: EventNote, now: Date, instance: string): Record<string, unknown> => {
  const { regarding } = event;
  const suffix = createHash('sha256').update(`${regarding.uid} ${event.reason} ${event.note} ${instance} ${now.getTime()}`).digest('hex').slice(0, 16);
  return {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: `${regarding.name.slice(0, 230)}.${suffix}`, namespace: namespaceOf(event) },
    eventTime: microTime(now),
    reportingController: 'strato.dev/operator',
    reportingInstance: instance.slice(0, 128),
    type: event.type,
    reason: event.reason.slice(0, 128),
    action: event.action.slice(0, 128),
    note: bounded(event.note, 1_024),
    // These and no more: callers may hand in the whole metadata of an object, and the API server refuses what an ObjectReference lacks.
    regarding: {
      apiVersion: regarding.apiVersion, kind: regarding.kind, name: regarding.name, namespace: regarding.namespace, uid: regarding.uid,
      resourceVersion: regarding.resourceVersion,
    },
  };
};

/** At most so many bytes of UTF-8, cut between characters. */
const bounded = (text: string, maxBytes: number): string => {
  if (Buffer.byteLength(text) <= maxBytes) return text;
  return `${Buffer.from(text).subarray(0, maxBytes - 6).toString('utf8').replace(/\uFFFD+$/, '')}...`;
};
