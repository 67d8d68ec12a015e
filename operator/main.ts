import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { pino } from 'pino';
import { systemClock } from '#crds/kit/clock.ts';
import { messageOf } from '#crds/kit/fault.ts';
import { parseConfig } from './config.ts';
import { serveHealth } from './http.ts';
import { loadConfig } from './kube/auth.ts';
import { connectLanes } from './kube/client.ts';
import { makeMetrics } from './metrics.ts';
import { runOperator, type Term } from './term.ts';

/** The operator's process: reads the configuration once, tells its health, runs, and ends whole on SIGTERM. */
const main = async (): Promise<void> => {
  const config = parseConfig(process.env, hostname());
  const log = pino({ level: config.logLevel, base: {} });
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => { log.info({ signal }, 'ending'); ending.abort(new Error(signal)); });

  await using api = connectLanes(loadConfig(config.kubeconfig), { userAgent: 'strato-operator/0.1.0' });
  const house = (): Term['house'] | undefined => operator.term()?.house;
  const metrics = makeMetrics(() => ({ nodes: house()?.nodes.all().length ?? 0, virtualMachines: house()?.vms.all().length ?? 0, images: house()?.images.all().length ?? 0 }));
  const operator = runOperator({
    stepTaken: metrics.stepTaken, kube: api.kube, lanes: api.lanes, log, namespace: config.namespace, identity: `${config.identity}_${randomUUID()}`, instance: config.identity,
    clock: systemClock, chance: Math.random, agentListen: config.agentListen, signal: ending.signal,
    tls: async () => ({ cert: await readFile(config.tlsCertFile, 'utf8'), key: await readFile(config.tlsKeyFile, 'utf8') }),
  });
  operator.stopped.catch(() => {}); // awaited below; until then it must not end the process by itself
  await using _health = await serveHealth({
    live: () => true,
    ready: () => operator.term()?.ready() ?? false,
    registry: metrics.registry,
  }, config.httpListen);
  await operator.stopped;
};

main().then(
  () => { process.exitCode = 0; },
  (error: unknown) => {
    process.stderr.write(`strato-operator: ${messageOf(error)}\n`);
    process.exitCode = 1;
  },
);
