import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { request } from 'undici';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { imageManifest, user, vmManifest } from '#hack/bed/objects.ts';
import { freePorts } from '#hack/bed/ports.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';

const root = join(import.meta.dirname, '..');

/** `operator/main.ts` as a process of its own, as a pod or `./hack/up` runs it. */
describe('the operator\'s process', () => {
  let cluster: Cluster;
  let agents = 0;
  let http = 0;
  let process_: ChildProcess | undefined;
  let output = '';
  let node: SimNode;
  let me: ReturnType<typeof user>;

  const start = (env: Record<string, string> = {}): ChildProcess => {
    const child = spawn(join(root, 'node_modules', '.bin', 'node'), [join(root, 'operator', 'main.ts')], {
      cwd: root,
      env: {
        PATH: process.env['PATH'], KUBECONFIG: cluster.operatorKubeconfig, STRATO_AGENT_LISTEN: `127.0.0.1:${agents}`, STRATO_HTTP_LISTEN: `127.0.0.1:${http}`,
        STRATO_TLS_CERT_FILE: cluster.operatorTls.cert, STRATO_TLS_KEY_FILE: cluster.operatorTls.key, STRATO_IDENTITY: 'operator', ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => { output += chunk.toString(); });
    process_ = child;
    return child;
  };
  const end = async (child: ChildProcess, signal: NodeJS.Signals) => {
    const exit = once(child, 'exit');
    child.kill(signal);
    return exit;
  };
  const ask = async (path: string): Promise<{ status: number; text: string }> => {
    const { statusCode, body } = await request(`http://127.0.0.1:${http}${path}`);
    return { status: statusCode, text: await body.text() };
  };
  const ready = () => until('the operator to be ready', async () => (await ask('/readyz')).status === 200, 60_000);

  beforeAll(async () => {
    cluster = await startCluster();
    [agents = 0, http = 0] = await freePorts(2);
    me = user(cluster.kube);
  }, 300_000);
  afterAll(async () => {
    await node?.stop();
    if (process_?.exitCode === null && process_.signalCode === null) await end(process_, 'SIGKILL');
    await cluster?.[Symbol.asyncDispose]();
  });

  test('names a wrong setting and ends', async () => {
    const child = start({ STRATO_AGENT_LISTEN: 'nowhere', STRATO_COLOUR: 'red' });
    expect(await once(child, 'exit')).toEqual([1, null]);
    expect(output).toContain('STRATO_AGENT_LISTEN=nowhere');
  });

  test('starts before the API server is there, is alive meanwhile, and is ready once it has caught up', async () => {
    await cluster.kill();
    start();
    await until('it to be alive', async () => (await ask('/healthz')).status === 200, 60_000);
    expect((await ask('/readyz')).status).toBe(503);
    await cluster.start();
    await ready();
    expect([(await ask('/metrics')).text, (await ask('/other')).status]).toEqual([expect.stringContaining('strato_virtual_machines 0'), 404]);
  });

  test('runs VMs', async () => {
    node = await startSimNode({ name: 'node-1', url: `https://127.0.0.1:${agents}`, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) });
    await me.apply(imageManifest());
    await me.apply(vmManifest('web'));
    await me.vmIs('web', 'Ready=True Running');
    expect((await ask('/metrics')).text).toContain('strato_virtual_machines 1');
  });

  test('killed, it is replaced by another that takes the lead when the Lease has run out; what users did meanwhile is done, no other guest notices', async () => {
    for (const name of ['halted', 'paused', 'deleted']) await me.apply(vmManifest(name));
    for (const name of ['halted', 'paused', 'deleted']) await me.vmIs(name, 'Ready=True Running');
    const { metadata: { uid: deleted } } = await me.vm('deleted');
    const before = node.running();
    const starts = node.starts();
    if (process_) await end(process_, 'SIGKILL');
    await me.patchVm('halted', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    await me.patchVm('paused', { spec: { powerState: 'Paused' } });
    await me.deleteVm('deleted');
    await me.apply(vmManifest('later'));
    expect([node.running(), (await me.vm('later')).status.observedGeneration]).toEqual([before, -1]);
    start();
    const later = await me.vmIs('later', 'Ready=True Running');
    await me.vmIs('halted', 'Ready=True Stopped');
    await me.vmIs('paused', 'Ready=True Paused');
    await me.vmGone('deleted');
    const { metadata: { uid: web } } = await me.vmIs('web', 'Ready=True Running');
    expect([node.running().toSorted(), node.starts(), node.world.disks.has(deleted)]).toEqual([[web, later.metadata.uid].toSorted(), starts + 1, false]);
  }, 300_000);

  test('that stood still for longer than silence takes calls nobody silent: it takes the lead anew, and does what users did meanwhile', async () => {
    const leaseNow = async () => Object(await cluster.kube.request('GET', '/apis/coordination.k8s.io/v1/namespaces/strato-system/leases/strato-operator')).spec;
    const dates = async () => (await me.node('node-1')).status.conditions?.map(({ type, lastTransitionTime }) => `${type} ${lastTransitionTime}`);
    const { metadata: { resourceVersion: before } } = await me.vmIs('web', 'Ready=True Running');
    const [{ leaseTransitions }, conditions, starts] = [await leaseNow(), await dates(), node.starts()];
    process_?.kill('SIGSTOP');
    await me.patchVm('halted', { spec: { powerState: 'Running' } });
    await until('its agent to give it up', () => !node.agent.joined(), 60_000);
    await delay(10_000);
    process_?.kill('SIGCONT');
    await me.vmIs('halted', 'Ready=True Running');
    expect([(await leaseNow()).leaseTransitions, (await me.vm('web')).metadata.resourceVersion, await dates(), node.starts()]).toEqual([leaseTransitions + 1, before, conditions, starts + 1]);
  }, 180_000);

  test('SIGTERM ends it whole within seconds, and gives the Lease back', async () => {
    if (!process_) throw new Error('no process');
    expect(await end(process_, 'SIGTERM')).toEqual([0, null]);
    const { spec } = Object(await cluster.kube.request('GET', '/apis/coordination.k8s.io/v1/namespaces/strato-system/leases/strato-operator'));
    expect(spec.holderIdentity ?? '').toBe('');
    expect(output).not.toMatch(/Unhandled|at .*\.ts:\d+/);
  });
});
