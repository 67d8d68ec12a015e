import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { systemClock } from '#crds/kit/clock.ts';
import { messageOf } from '#crds/kit/fault.ts';
import { readClusterId } from './clusterid.ts';
import { parseConfig } from './config.ts';
import { authenticate } from './fleet/auth.ts';
import { serveAgents } from './fleet/server.ts';
import { serveHealth } from './http.ts';
import { loadConfig } from './kube/auth.ts';
import { connectKube } from './kube/client.ts';
import { makeHeartbeats } from './kube/heartbeat.ts';
import { takeLease } from './kube/lease.ts';
import { ensureNode, judgeIdentity } from './node/admit.ts';
import { startOperator } from './operator.ts';

/** The operator's process: reads the configuration once, leads, serves agents, and ends whole on SIGTERM. */
const main = async (): Promise<void> => {
  const config = parseConfig(process.env, hostname());
  const log = pino({ level: config.logLevel, base: {} });
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => { log.info({ signal }, 'ending'); ending.abort(new Error(signal)); });

  await using kube = connectKube(loadConfig(config.kubeconfig), { userAgent: 'strato-operator/0.1.0' });
  const { namespace } = config;
  const clock = systemClock;
  const chance = Math.random;
  const { signal } = ending;
  const clusterId = await readClusterId(kube, namespace, signal);
  const led = Promise.withResolvers<void>();
  const house = startOperator({ kube, clusterId, instance: config.identity, log, clock, chance, signal, leading: led.promise });
  await using _health = await serveHealth({
    live: () => true,
    ready: house.hasSynced,
    figures: () => ({ nodes: house.nodes.all().length, virtualMachines: house.vms.all().length, images: house.images.all().length }),
  }, config.httpListen);
  await house.synced;

  const lease = await takeLease({
    kube, namespace, name: 'strato-operator', identity: `${config.identity}_${randomUUID()}`, clock, chance, log, signal,
    // What is decided without the lead must not leave this process: it ends, and a new one begins anew.
    onLost: (why) => { log.error({ why }, 'leadership lost'); ending.abort(new Error(why)); },
  });
  await using _lead = lease;
  log.info({ leaderEpoch: lease.epoch(), clusterId }, 'leading');
  led.resolve();

  const beats = makeHeartbeats({ kube, namespace, clock });
  await using agents = await serveAgents({
    fleet: house.fleet, monotonicMs: clock.monotonicMs, now: clock.now, log,
    tls: { cert: readFileSync(config.tlsCertFile, 'utf8'), key: readFileSync(config.tlsKeyFile, 'utf8') },
    leading: lease.holds,
    reviewToken: (token) => authenticate(kube, namespace, token, signal),
    admit: async (hello, node) => {
      const admission = judgeIdentity(await ensureNode(kube, node, signal), hello.agentId);
      if (admission.is === 'conflict') return { refused: 'IdentityConflict', message: admission.message };
      if (!lease.holds()) return { refused: 'NotLeader', message: 'this operator does not lead any more' };
      return { leaderEpoch: await lease.raiseEpoch(hello.leaderEpochSeen) };
    },
    heard: (node) => { beats.beat(node, signal).catch((error: unknown) => { log.warn({ node, why: messageOf(error) }, 'lease of the node not renewed'); }); },
  }, config.agentListen);
  log.info({ port: agents.port }, 'serving agents');
  await house.stopped;
};

main().then(
  () => { process.exitCode = 0; },
  (error: unknown) => {
    process.stderr.write(`strato-operator: ${messageOf(error)}\n`);
    process.exitCode = 1;
  },
);
