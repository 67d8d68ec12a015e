import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { imageManifest, vmManifest } from '#hack/bed/objects.ts';
import { type Simulated, startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';
import { type SimNode, simWorld, startSimNode } from '#hack/sim/node.ts';

const data = { name: 'data', blank: {}, size: '16Mi', deletionPolicy: 'Retain' };
const stepMs = 120_000;
const nodeMs = 4 * stepMs;

/** Disks that outlive their VMs among several nodes, with real agents on pretend ones. */
describe('a kept disk among two nodes', () => {
  let lab: Simulated;
  let large: SimNode;
  const startLarge = async (world = simWorld()) => {
    large = await startSimNode({ name: 'node-2', memoryMiB: 65_536, url: lab.operator().url, caFile: lab.cluster.authority, token: () => lab.cluster.token({ node: 'node-2' }), world });
  };
  beforeAll(async () => {
    lab = await startSimulated({ memoryMiB: 8_192 });
    await startLarge();
    await lab.me.nodeIs('node-2', 'Ready=True Ready', stepMs);
  }, nodeMs);
  afterAll(async () => {
    await large?.stop();
    await lab?.[Symbol.asyncDispose]();
  }, stepMs);

  const manifest = (name: string, ...disks: object[]) => vmManifest(name, { disks: [{ name: 'root', image: { name: 'guest' } }, ...disks] });
  const runs = async (name: string, ...disks: object[]) => {
    await lab.me.apply(manifest(name, ...disks));
    return lab.me.vmIs(name, 'Ready=True Running', stepMs);
  };
  const gone = async (name: string) => {
    await lab.me.deleteVm(name);
    await lab.me.vmGone(name, stepMs);
  };
  /** The operator goes by it from then on. */
  const schedulable = async (name: string, on: boolean) => {
    await lab.me.patchNode(name, { spec: { schedulable: on } });
    await until('the operator to have seen it', async () => { const { metadata, status } = await lab.me.node(name); return status.observedGeneration === metadata.generation; }, stepMs);
  };
  const kept = (world: SimNode['world']) => [...world.kept.values()].map(({ name }) => name);
  const stateOf = async (vm: string) => (await lab.me.disksOf(vm)).map(({ status }) => `${status.diskName} on ${status.nodeName} ${status.state}`);

  test('draws its VM to its node, although another one has more room; without it the VM goes there', async () => {
    await schedulable('node-2', false);
    const { status } = await runs('web', data);
    await schedulable('node-2', true);
    await gone('web');
    expect([status.nodeName, await stateOf('web'), kept(lab.node().world), kept(large.world)]).toEqual(['node-1', ['data on node-1 Kept'], ['data'], []]);
    expect((await runs('web', data)).status.nodeName).toBe('node-1');
    await until('the VirtualDisk to be gone', async () => (await stateOf('web')).length === 0, stepMs);
    expect(kept(lab.node().world)).toEqual([]);
    await gone('web');
    for (const { metadata } of await lab.me.disksOf('web')) await lab.me.deleteDisk(metadata.name);
    await until('its data to be gone', () => kept(lab.node().world).length === 0, stepMs);
    expect((await runs('web')).status.nodeName).toBe('node-2');
    await gone('web');
  }, nodeMs);

  test('comes back as the root disk of a VM whose image is gone, and that VM can be edited; a new VM waits for the image', async () => {
    await lab.me.apply(imageManifest('once'));
    const root = { disks: [{ name: 'root', image: { name: 'once' }, deletionPolicy: 'Retain' }] };
    await lab.me.apply(vmManifest('rooted', root));
    const first = await lab.me.vmIs('rooted', 'Ready=True Running', stepMs);
    const world = first.status.nodeName === 'node-1' ? lab.node().world : large.world;
    const file = world.disks.get(first.metadata.uid)?.disks.get('root');
    await gone('rooted');
    const [disk] = await lab.me.disksOf('rooted');
    expect([disk?.status.architecture, disk?.status.nodeName]).toEqual(['amd64', first.status.nodeName]);
    await lab.me.deleteImage('once');
    await lab.me.imageGone('once', stepMs);
    await lab.me.apply(vmManifest('rooted', root));
    const second = await lab.me.vmIs('rooted', 'Ready=True Running', stepMs);
    expect([file === undefined, world.disks.get(second.metadata.uid)?.disks.get('root')]).toEqual([false, file]);
    await until('the VirtualDisk to be gone', async () => (await stateOf('rooted')).length === 0, stepMs);
    await lab.me.patchVm('rooted', { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
    await lab.me.vmIs('rooted', 'Ready=True Stopped', stepMs);
    await lab.me.apply(vmManifest('rootless', root));
    await lab.me.vmIs('rootless', 'Ready=False ImageNotFound', stepMs);
    await lab.me.deleteVm('rootless');
    await gone('rooted');
    for (const { metadata } of await lab.me.disksOf('rooted')) await lab.me.deleteDisk(metadata.name);
  }, nodeMs);

  test('that was lost with its node is told, and its VM gets no other one, nor goes elsewhere', async () => {
    await schedulable('node-2', false);
    await runs('lost', data);
    await gone('lost');
    await schedulable('node-2', true);
    await lab.node().stop();
    await lab.me.annotateNode('node-1', { 'strato.dev/accept-agent': 'agent-anew' });
    await lab.startNode({ agentId: 'agent-anew', world: simWorld() });
    await until('the node to be another one', async () => (await lab.me.node('node-1')).status.agentId === 'agent-anew', stepMs);
    await until('the disk to be missing', async () => (await stateOf('lost'))[0] === 'data on node-1 Missing', stepMs);
    await lab.me.apply(manifest('lost', data));
    const waits = await lab.me.vmIs('lost', 'Ready=False WaitingForDisk', stepMs);
    expect([waits.status.nodeName, waits.status.conditions?.find(({ type }) => type === 'Ready')?.message]).toEqual([undefined, expect.stringContaining('node node-1, which does not have it any more')]);
    const [disk] = await lab.me.disksOf('lost');
    await lab.me.deleteDisk(disk?.metadata.name ?? '');
    expect((await lab.me.vmIs('lost', 'Ready=True Running', stepMs)).status.nodeName).toBe('node-2');
    await gone('lost');
  }, nodeMs);

  test('whose VM was torn out of the API is waited for by the next VM of that name, whether its node is there or away, until it is adopted', async () => {
    const { metadata: { uid }, status } = await runs('torn', data);
    const file = large.world.disks.get(uid)?.disks.get('data');
    await lab.operator().stop();
    await lab.me.patchVm('torn', { metadata: { finalizers: null } });
    await lab.me.deleteVm('torn');
    await lab.startOperator();
    await until('its machine to be an orphan', async () => (await lab.me.node('node-2')).status.orphans?.some((each) => each.uid === uid), stepMs);
    await lab.me.annotateNode('node-2', { 'strato.dev/discard-orphan': uid });
    const found = await until('its disk to be told', async () => (await lab.me.node('node-2')).status.orphanDisks?.find(({ vm }) => vm === 'torn'), stepMs);
    // Any node but that one would make it a new disk.
    await schedulable('node-2', false);
    await lab.me.apply(manifest('torn', { ...data, deletionPolicy: 'Delete' }));
    const annotate = 'kubectl annotate hvn node-2 --overwrite strato.dev/';
    const waits = async () => {
      const { status: { nodeName, conditions } } = await lab.me.vmIs('torn', 'Ready=False WaitingForDisk', stepMs);
      return [nodeName, conditions?.find(({ type }) => type === 'Ready')?.message];
    };
    const message = `disk data: node node-2 keeps one of an earlier VM of this name under ${found.uid}, and no VirtualDisk stands for it; to have it back: ${annotate}adopt-orphan=${found.uid}; to start with a new disk and lose that data: ${annotate}discard-orphan=${found.uid}`;
    expect([status.nodeName, ...await waits()]).toEqual(['node-2', undefined, message]);
    // While a node has not spoken, what the last operator recorded of it counts.
    await large.stop();
    await lab.operator().stop();
    await lab.startOperator();
    await lab.me.nodeIs('node-2', 'AgentConnected=False NodeUnreachable', 2 * stepMs);
    await lab.me.apply(manifest('torn', data));
    await until('the edit to be seen', async () => (await lab.me.vm('torn')).status.observedGeneration === 2, stepMs);
    expect(await waits()).toEqual([undefined, message]);
    await startLarge(large.world);
    await lab.me.annotateNode('node-2', { 'strato.dev/discard-orphan': null, 'strato.dev/adopt-orphan': found.uid });
    await schedulable('node-2', true);
    const back = await lab.me.vmIs('torn', 'Ready=True Running', stepMs);
    expect([back.status.nodeName, large.world.disks.get(back.metadata.uid)?.disks.get('data') === file, file === undefined, large.world.kept.has(found.uid)]).toEqual(['node-2', true, false, false]);
    await lab.me.annotateNode('node-2', { 'strato.dev/adopt-orphan': null });
    await gone('torn');
    for (const { metadata } of await lab.me.disksOf('torn')) await lab.me.deleteDisk(metadata.name);
  }, 3 * nodeMs);

  test('is recorded by the next operator when the last one ended before it could', async () => {
    await runs('late', data);
    const uid = (await lab.me.vm('late')).metadata.uid;
    await lab.operator().stop();
    await lab.me.deleteVm('late');
    await lab.startOperator();
    await lab.me.vmGone('late', stepMs);
    expect([(await stateOf('late')).length, [...lab.node().world.disks.keys(), ...large.world.disks.keys()].includes(uid)]).toEqual([1, false]);
  }, nodeMs);

  test('outlives a restore of the cluster to before it was kept, or to before its VM: it is found again, or adopted', async () => {
    const file = (world: SimNode['world'], uid: string) => world.disks.get(uid)?.disks.get('data');
    const worlds = () => [lab.node().world, large.world];
    const back = async (name: string, kept: unknown) => {
      const { metadata: { uid } } = await runs(name, data);
      expect(worlds().map((world) => file(world, uid)).filter((each) => each !== undefined)).toEqual([kept]);
    };
    const old = (await runs('old', data)).metadata.uid;
    const restore = await lab.cluster.snapshot();
    await lab.me.vmIs('old', 'Ready=True Running', stepMs);
    const young = (await runs('young', data)).metadata.uid;
    const [oldFile, youngFile] = [old, young].map((uid) => worlds().map((world) => file(world, uid)).find((each) => each !== undefined));
    await gone('old');
    await gone('young');
    await restore();
    // The object of the older one is back, and its node ended it for ever: its disk is recorded anew.
    await lab.me.vmIs('old', 'Ready=False EndedForEver', nodeMs);
    await until('its VirtualDisk to be back', async () => (await stateOf('old')).length === 1, stepMs);
    await gone('old');
    await back('old', oldFile);
    const orphanDisks = async () => (await Promise.all(['node-1', 'node-2'].map(async (name) => (await lab.me.node(name)).status.orphanDisks?.map((disk) => ({ node: name, ...disk })) ?? []))).flat();
    const [orphan, ...more] = (await until('the disk of the younger one to be told', async () => { const all = await orphanDisks(); return all.some(({ vm }) => vm === 'young') && all; }, stepMs)).filter(({ vm }) => vm === 'young');
    expect([orphan?.disk, more]).toEqual(['data', []]);
    await lab.me.annotateNode(orphan?.node ?? '', { 'strato.dev/adopt-orphan': orphan?.uid ?? '' });
    await until('it to be adopted', async () => (await stateOf('young')).length === 1, stepMs);
    await back('young', youngFile);
  }, 3 * nodeMs);
});
