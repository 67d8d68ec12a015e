import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { apply } from '#hack/bed/apply.ts';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { installCrds } from '#hack/bed/crds.ts';
import { imageManifest, user, verdict, vmManifest } from '#hack/bed/objects.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, startSimNode } from '#hack/sim/node.ts';

const crdPath = (plural: string) => `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${plural}.strato.dev`;

/** Objects and CRDs of another time than this operator's. */
describe('what does not fit this build', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let node: SimNode;
  let me: ReturnType<typeof user>;
  /** Changes a CRD, that of VMs unless another is named. The API server goes by it a moment later. */
  const changeCrd = async (change: (properties: { spec: Fields; status: Fields }) => void, annotations: Record<string, string> = {}, plural = 'virtualmachines') => {
    const crd = Object(await cluster.kube.request('GET', crdPath(plural)));
    const { properties } = crd.spec.versions[0].schema.openAPIV3Schema;
    change({ spec: properties.spec.properties, status: properties.status.properties });
    Object.assign(crd.metadata.annotations, annotations);
    await cluster.kube.request('PUT', crdPath(plural), { body: crd });
  };

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    node = await startSimNode({ name: 'node-1', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) });
    me = user(cluster.kube);
    await me.apply(imageManifest());
    for (const name of ['good', 'bad']) await me.apply(vmManifest(name));
    for (const name of ['good', 'bad']) await me.vmIs(name, 'Ready=True Running', 30_000);
  }, 300_000);
  afterAll(async () => {
    await node?.stop();
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  }, 60_000);

  test('a stored VM that breaks the rules is told so and left alone; it keeps its node, its guest runs, and the others go on', async () => {
    const before = await me.vm('bad');
    const running = node.running();
    await changeCrd(({ spec }) => { Object(spec['stop'])['properties'].gracePeriodSeconds = { type: 'integer' }; });
    await until('the looser rule', () => me.patchVm('bad', { spec: { stop: { gracePeriodSeconds: 86_400 } } }), 20_000);
    await until('the VM that breaks it', () => apply(cluster.kube, vmManifest('bad', { stop: { gracePeriodSeconds: 1_000_000 } })), 20_000);
    await installCrds(cluster.kube);
    const raw = await until('the verdict', async () => {
      const object = Object(await cluster.kube.request('GET', '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/bad'));
      return verdict(object) === 'Ready=False SpecInvalid' ? object : undefined;
    }, 20_000);
    expect(verdict(raw, 'Stalled')).toBe('Stalled=True SpecInvalid');
    const { nodeName, epoch, resolved } = before.status;
    expect(raw.status).toMatchObject({ nodeName, epoch, resolved: { uuid: resolved?.uuid }, observedGeneration: raw.metadata.generation });
    expect(raw.status.conditions[0].message).toContain('gracePeriodSeconds');
    expect(node.running()).toEqual(running);
    await me.apply(vmManifest('other'));
    await me.vmIs('other', 'Ready=False NoNodeFits');
    await me.patchVm('good', { spec: { powerState: 'Paused' } });
    await me.vmIs('good', 'Ready=True Paused');
  }, 60_000);

  test('an operator that starts with it in the store knows it, takes it for no orphan, and is ready', async () => {
    await operator.stop();
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port) });
    await operator.leading();
    await until('the agent to join', () => node.agent.joined(), 20_000);
    const { status } = await me.nodeIs('node-1', 'Ready=True Ready');
    expect([status.orphans ?? [], verdict({ status }, 'OrphansPresent'), node.running().length]).toEqual([[], 'OrphansPresent=False NoOrphans', 1]);
  }, 60_000);

  test('mended, it is as before; nothing was restarted', async () => {
    await me.patchVm('bad', { spec: { stop: { gracePeriodSeconds: 30 } } });
    const mended = await me.vmIs('bad', 'Ready=True Running');
    expect([verdict(mended, 'Stalled'), node.starts(mended.metadata.uid)]).toEqual([undefined, 1]);
    await me.vmIs('other', 'Ready=True Running', 40_000);
  }, 60_000);

  test('deleted, it is ended on its node like any other', async () => {
    const { metadata: { uid } } = await me.vm('good');
    await changeCrd(({ spec }) => { Object(spec['stop'])['properties'].gracePeriodSeconds = { type: 'integer' }; });
    await until('the VM that breaks the rules', () => apply(cluster.kube, vmManifest('good', { stop: { gracePeriodSeconds: 1_000_000 } })), 20_000);
    await installCrds(cluster.kube);
    await me.deleteVm('good');
    await me.vmGone('good');
    expect([node.world.disks.has(uid), node.running()]).toEqual([false, expect.not.arrayContaining([uid])]);
  }, 60_000);

  test('a stored image that breaks the rules is told so, and others are imported; a VM that wants it waits', async () => {
    const odd = imageManifest('odd');
    await changeCrd(({ spec }) => { spec['format'] = { type: 'string' }; }, {}, 'virtualmachineimages');
    await until('the image that breaks the rules', () => apply(cluster.kube, { ...odd, spec: { ...Object(odd['spec']), format: 'vmdk' } }), 20_000);
    await installCrds(cluster.kube);
    const path = '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachineimages/odd';
    const raw = await until('the verdict', async () => {
      const object = Object(await cluster.kube.request('GET', path));
      return verdict(object) === 'Ready=False SpecInvalid' ? object : undefined;
    }, 20_000);
    expect([verdict(raw, 'Stalled'), raw.status.conditions[0].message]).toEqual(['Stalled=True SpecInvalid', expect.stringContaining('format')]);
    await me.apply(vmManifest('hopeful', {}, 'default', 'odd'));
    await me.vmIs('hopeful', 'Ready=False ImageNotFound');
    await me.apply(imageManifest('fine'));
    await me.imageIs('fine', 'Ready=True Ready');
    await me.deleteImage('odd');
    await me.apply(odd);
    await me.vmIs('hopeful', 'Ready=True Running', 30_000);
  }, 90_000);

  test('a stored node that breaks the rules is told so; its guests run and follow, its agent comes back to it, and nothing new is placed there', async () => {
    const running = node.running();
    await changeCrd(({ spec }) => { spec['schedulable'] = { type: 'string' }; }, {}, 'hypervisornodes');
    const path = '/apis/strato.dev/v1alpha1/hypervisornodes/node-1';
    const set = (schedulable: unknown) => cluster.kube.request('PATCH', path, { body: { spec: { schedulable } }, contentType: 'application/merge-patch+json' });
    await until('the node that breaks the rules', () => set('maybe'), 20_000);
    await installCrds(cluster.kube);
    const raw = await until('the verdict', async () => {
      const object = Object(await cluster.kube.request('GET', path));
      return verdict(object) === 'Ready=False SpecInvalid' ? object : undefined;
    }, 20_000);
    expect([raw.status.conditions[0].message, raw.status.agentId]).toEqual([expect.stringContaining('schedulable'), 'agent-of-node-1']);
    node.cut();
    await until('the agent to be away', () => !node.agent.joined(), 10_000);
    await until('the agent to be back', () => node.agent.joined(), 20_000);
    await me.patchVm('hopeful', { spec: { powerState: 'Paused' } });
    await me.vmIs('hopeful', 'Ready=True Paused');
    await me.apply(vmManifest('homeless'));
    await me.vmIs('homeless', 'Ready=False NoNodeReady');
    expect(node.running().length).toBe(running.length - 1);
    await set(true);
    await me.nodeIs('node-1', 'Ready=True Ready');
    await me.vmIs('homeless', 'Ready=True Running', 40_000);
  }, 120_000);

  test('CRDs that are older than the operator: it is not ready and does not lead until they are as its own', async () => {
    await operator.stop();
    await changeCrd(({ status }) => { delete status['lastExit']; }, { 'strato.dev/schema-revision': 'older' });
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port) });
    const line = await until('the verdict', () => operator.lines.find(({ sentence }) => sentence.startsWith('the CRDs of the cluster are older')), 20_000);
    expect(line.fields['why']).toMatch(/^virtualmachines.strato.dev lacks .status.lastExit, /);
    expect([operator.running.term()?.ready(), operator.running.term()?.leaderEpoch()]).toEqual([false, undefined]);
    await installCrds(cluster.kube);
    expect((await operator.leading()).ready()).toBe(true);
    await me.nodeIs('node-1', 'Ready=True Ready');
  }, 90_000);
});

type Fields = Record<string, unknown>;
