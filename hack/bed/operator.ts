import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type Clock, systemClock } from '#crds/kit/clock.ts';
import type { Log } from '#crds/kit/log.ts';
import { loadConfig } from '#operator/kube/auth.ts';
import { connectLanes } from '#operator/kube/client.ts';
import type { Kube } from '#operator/kube/kube.ts';
import { runOperator, type RunningOperator, type Term, type TermParts } from '#operator/term.ts';
import type { Cluster } from './cluster.ts';
import { freePorts } from './ports.ts';
import { until } from './until.ts';

/** One line of an operator's log. */
export type Line = { level: keyof Log; sentence: string; fields: Record<string, unknown> };

/** An operator that runs in this process, with the rights of its ServiceAccount, on a real API server. */
export type BedOperator = AsyncDisposable & {
  running: RunningOperator;
  /** Where agents dial; stays the same from term to term. */
  url: string;
  lines: Line[];
  /** Waits until it leads and gives the term. */
  leading: () => Promise<Term>;
  /** Moves the operator's clock on, so that it believes everybody to have been silent meanwhile. The Lease does not run out by it. */
  skip: (ms: number) => void;
  /** Ends it as SIGTERM does. */
  stop: () => Promise<void>;
};

/** What a test may change. `kube` wraps the operator's clients; `port` is that of an earlier operator. */
export type BedOperatorOptions = { port?: number; kube?: (real: Kube) => Kube; leaseTimes?: TermParts['leaseTimes'] };

/** Starts the operator as `operator/main.ts` wires it. Resolves at once; see `leading`. */
export const startBedOperator = async (cluster: Cluster, options: BedOperatorOptions = {}): Promise<BedOperator> => {
  const ending = new AbortController();
  const lines: Line[] = [];
  const say = (level: keyof Log) => (fields: object, sentence: string) => void lines.push({ level, sentence, fields: { ...fields } });
  const log: Log = { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') };
  let skippedMs = 0;
  const clock: Clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skippedMs };
  const client = connectLanes(loadConfig(cluster.operatorKubeconfig), { userAgent: 'strato-operator/0.1.0' });
  const port = options.port ?? (await freePorts(1))[0] ?? 0;
  const wrap = options.kube ?? ((real: Kube) => real);
  const running = runOperator({
    kube: wrap(client.kube), lanes: { lease: wrap(client.lanes.lease), reviews: wrap(client.lanes.reviews) }, namespace: 'strato-system', identity: `bed_${randomUUID()}`, instance: 'bed', log, clock, chance: Math.random,
    tls: async () => ({ cert: await readFile(cluster.operatorTls.cert, 'utf8'), key: await readFile(cluster.operatorTls.key, 'utf8') }),
    agentListen: { host: '127.0.0.1', port },
    signal: ending.signal,
    // Longer than any skip.
    leaseTimes: { durationMs: 900_000, renewDeadlineMs: 600_000, ...options.leaseTimes },
  });
  running.stopped.catch((thrown: unknown) => say('error')({ err: thrown }, 'the operator failed'));
  const stop = async (): Promise<void> => {
    ending.abort(new Error('the test ends'));
    await running.stopped.catch(() => {});
    await client[Symbol.asyncDispose]();
  };
  return {
    running, lines, url: `https://127.0.0.1:${port}`, stop,
    leading: () => until('the operator to lead', () => {
      const term = running.term();
      return term?.leaderEpoch() === undefined ? undefined : term;
    }, 120_000),
    skip: (ms) => { skippedMs += ms; },
    [Symbol.asyncDispose]: stop,
  };
};
