import { beforeAll, describe, expect, test } from '@jest/globals';
import { apply } from '#hack/bed/apply.ts';
import { installCrds } from '#hack/bed/crds.ts';
import { imageManifest, verdict, vmManifest } from '#hack/bed/objects.ts';
import { opened } from '#hack/bed/opened.ts';
import { startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';

const crdPath = (plural: string) => `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${plural}.strato.dev`;

/** Objects and CRDs of another time than this operator's. */
describe('what does not fit this build', () => {
  const lab = opened(startSimulated);
  /** Changes a CRD, that of VMs unless another is named. The API server goes by it a moment later. */
  const changeCrd = async (change: (properties: { spec: Fields; status: Fields }) => void, annotations: Record<string, string> = {}, plural = 'virtualmachines') => {
    const crd = Object(await lab.cluster.kube.request('GET', crdPath(plural)));
    const { properties } = crd.spec.versions[0].schema.openAPIV3Schema;
    change({ spec: properties.spec.properties, status: properties.status.properties });
    Object.assign(crd.metadata.annotations, annotations);
    await lab.cluster.kube.request('PUT', crdPath(plural), { body: crd });
  };

  beforeAll(async () => {
    for (const name of ['good', 'bad']) await lab.me.apply(vmManifest(name));
    for (const name of ['good', 'bad']) await lab.me.vmIs(name, 'Ready=True Running');
  });

  test('a stored VM that breaks the rules is told so and left alone; it keeps its node, its guest runs, and the others go on', async () => {
    const before = await lab.me.vm('bad');
    const running = lab.node().running();
    await changeCrd(({ spec }) => { Object(spec['stop'])['properties'].gracePeriodSeconds = { type: 'integer' }; });
    await until('the looser rule', () => lab.me.patchVm('bad', { spec: { stop: { gracePeriodSeconds: 86_400 } } }), 60_000);
    await until('the VM that breaks it', () => apply(lab.cluster.kube, vmManifest('bad', { stop: { gracePeriodSeconds: 1_000_000 } })), 60_000);
    await installCrds(lab.cluster.kube);
    const raw = await until('the verdict', async () => {
      const object = Object(await lab.cluster.kube.request('GET', '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines/bad'));
      return verdict(object) === 'Ready=False SpecInvalid' ? object : undefined;
    }, 60_000);
    expect(verdict(raw, 'Stalled')).toBe('Stalled=True SpecInvalid');
    const { nodeName, epoch, resolved } = before.status;
    expect(raw.status).toMatchObject({ nodeName, epoch, resolved: { uuid: resolved?.uuid }, observedGeneration: raw.metadata.generation });
    expect(raw.status.conditions[0].message).toContain('gracePeriodSeconds');
    expect(lab.node().running()).toEqual(running);
    await lab.me.apply(vmManifest('other'));
    await lab.me.vmIs('other', 'Ready=False NoNodeFits');
    await lab.me.patchVm('good', { spec: { powerState: 'Paused' } });
    await lab.me.vmIs('good', 'Ready=True Paused');
  });

  test('an operator that starts with it in the store knows it, takes it for no orphan, and is ready', async () => {
    await lab.operator().stop();
    await lab.startOperator();
    await lab.operator().leading();
    await until('the agent to join', () => lab.node().agent.joined(), 60_000);
    const { status } = await lab.me.nodeIs('node-1', 'Ready=True Ready');
    expect([status.orphans ?? [], verdict({ status }, 'OrphansPresent'), lab.node().running().length]).toEqual([[], 'OrphansPresent=False NoOrphans', 1]);
  });

  test('mended, it is as before; nothing was restarted', async () => {
    await lab.me.patchVm('bad', { spec: { stop: { gracePeriodSeconds: 30 } } });
    const mended = await lab.me.vmIs('bad', 'Ready=True Running');
    expect([verdict(mended, 'Stalled'), lab.node().starts(mended.metadata.uid)]).toEqual([undefined, 1]);
    await lab.me.vmIs('other', 'Ready=True Running');
  });

  test('deleted, it is ended on its node like any other', async () => {
    const { metadata: { uid } } = await lab.me.vm('good');
    await changeCrd(({ spec }) => { Object(spec['stop'])['properties'].gracePeriodSeconds = { type: 'integer' }; });
    await until('the VM that breaks the rules', () => apply(lab.cluster.kube, vmManifest('good', { stop: { gracePeriodSeconds: 1_000_000 } })), 60_000);
    await installCrds(lab.cluster.kube);
    await lab.me.deleteVm('good');
    await lab.me.vmGone('good');
    expect([lab.node().world.disks.has(uid), lab.node().running()]).toEqual([false, expect.not.arrayContaining([uid])]);
  });

  test('a stored image that breaks the rules is told so, and others are imported; a VM that wants it waits', async () => {
    const odd = imageManifest('odd');
    await changeCrd(({ spec }) => { spec['format'] = { type: 'string' }; }, {}, 'virtualmachineimages');
    await until('the image that breaks the rules', () => apply(lab.cluster.kube, { ...odd, spec: { ...Object(odd['spec']), format: 'vmdk' } }), 60_000);
    await installCrds(lab.cluster.kube);
    const path = '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachineimages/odd';
    const raw = await until('the verdict', async () => {
      const object = Object(await lab.cluster.kube.request('GET', path));
      return verdict(object) === 'Ready=False SpecInvalid' ? object : undefined;
    }, 60_000);
    expect([verdict(raw, 'Stalled'), raw.status.conditions[0].message]).toEqual(['Stalled=True SpecInvalid', expect.stringContaining('format')]);
    await lab.me.apply(vmManifest('hopeful', {}, 'default', 'odd'));
    await lab.me.vmIs('hopeful', 'Ready=False ImageNotFound');
    await lab.me.apply(imageManifest('fine'));
    await lab.me.imageIs('fine', 'Ready=True Ready');
    await lab.me.deleteImage('odd');
    await lab.me.imageGone('odd');
    await lab.me.apply(odd);
    await lab.me.vmIs('hopeful', 'Ready=True Running');
  });

  test('a stored node that breaks the rules is told so; its guests run and follow, its agent comes back to it, and nothing new is placed there', async () => {
    const running = lab.node().running();
    await changeCrd(({ spec }) => { spec['schedulable'] = { type: 'string' }; }, {}, 'hypervisornodes');
    const path = '/apis/strato.dev/v1alpha1/hypervisornodes/node-1';
    const set = (schedulable: unknown) => lab.cluster.kube.request('PATCH', path, { body: { spec: { schedulable } }, contentType: 'application/merge-patch+json' });
    await until('the node that breaks the rules', () => set('maybe'), 60_000);
    await installCrds(lab.cluster.kube);
    const raw = await until('the verdict', async () => {
      const object = Object(await lab.cluster.kube.request('GET', path));
      return verdict(object) === 'Ready=False SpecInvalid' ? object : undefined;
    }, 60_000);
    expect([raw.status.conditions[0].message, raw.status.agentId]).toEqual([expect.stringContaining('schedulable'), 'agent-of-node-1']);
    const sessions = () => lab.operator().lines.filter(({ sentence }) => sentence === 'agent connected').length;
    const before = sessions();
    lab.node().cut();
    await until('the agent to be back', () => sessions() > before && lab.node().agent.joined(), 60_000);
    await lab.me.patchVm('hopeful', { spec: { powerState: 'Paused' } });
    await lab.me.vmIs('hopeful', 'Ready=True Paused');
    await lab.me.apply(vmManifest('homeless'));
    await lab.me.vmIs('homeless', 'Ready=False NoNodeReady');
    expect(lab.node().running().length).toBe(running.length - 1);
    await set(true);
    await lab.me.nodeIs('node-1', 'Ready=True Ready');
    await lab.me.vmIs('homeless', 'Ready=True Running');
  });

  test('CRDs that are older than the operator: it is not ready and does not lead until they are as its own', async () => {
    await lab.operator().stop();
    await changeCrd(({ status }) => { delete status['lastExit']; }, { 'strato.dev/schema-revision': 'older' });
    await lab.startOperator();
    const line = await until('the verdict', () => lab.operator().lines.find(({ sentence }) => sentence.startsWith('the CRDs of the cluster are older')), 60_000);
    expect(line.fields['why']).toMatch(/^virtualmachines.strato.dev lacks .status.lastExit, /);
    expect([lab.operator().running.term()?.ready(), lab.operator().running.term()?.leaderEpoch()]).toEqual([false, undefined]);
    await installCrds(lab.cluster.kube);
    expect((await lab.operator().leading()).ready()).toBe(true);
    await lab.me.nodeIs('node-1', 'Ready=True Ready');
  });
});

type Fields = Record<string, unknown>;
