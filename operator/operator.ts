import { z } from 'zod';
import { orAborted } from '#crds/kit/aborted.ts';
import { imageOf } from '#crds/v1alpha1/disks.ts';
import type { Clock } from '#crds/kit/clock.ts';
import { Fault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { type Outcome, settled } from '#crds/kit/outcome.ts';
import { hypervisorNode, hypervisorNodeKind } from '#crds/v1alpha1/hypervisornode.ts';
import { apiVersion, objectMeta } from '#crds/v1alpha1/meta.ts';
import { type VirtualDisk, virtualDisk, virtualDiskKind } from '#crds/v1alpha1/virtualdisk.ts';
import { type VirtualMachine, virtualMachine, virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { virtualMachineImage, virtualMachineImageKind } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import { makeDiskReconciler } from './disk/reconcile.ts';
import { type KeptFor, recordDisk } from './disk/record.ts';
import { unrecordedOf } from './disk/unrecorded.ts';
import { makeFleet } from './fleet/fleet.ts';
import { letGoUnparsable, makeImageReconciler } from './image/reconcile.ts';
import { makeRecorder } from './kube/events.ts';
import { type Informer, startInformer } from './kube/informer.ts';
import type { Kube } from './kube/kube.ts';
import { deleteObject, patchStatus, setFinalizers, type Versioned } from './kube/patch.ts';
import { namespaces as namespaceResource, type Resource, resourceOf } from './kube/resource.ts';
import { makeQueue, type Queue } from './loop/queue.ts';
import { run } from './loop/run.ts';
import { makeNodeReconciler } from './node/reconcile.ts';
import { noteNewest, type Past } from './past.ts';
import { type EndHands, endsOn, endUnparsable, reportUnparsable } from './unparsable.ts';
import type { TimedStep } from './vm/guest.ts';
import { machineUidOf } from './vm/identity.ts';
import { isNodeGone } from './vm/observe.ts';
import { makeVmReconciler } from './vm/reconcile.ts';
import { readSecret } from './vm/secrets.ts';

/**
 * What the operator's machinery needs; all of it is handed in, so that tests run it whole against any Kube. A follower keeps its
 * caches warm and decides nothing until `leading` resolves.
 */
export type OperatorParts = {
  kube: Kube;
  clusterId: string;
  instance: string;
  log: Log;
  clock: Clock;
  chance: () => number;
  signal: AbortSignal;
  leading: Promise<void>;
  /** Asked before each write: who does not lead any more writes nothing. */
  mayWrite: () => boolean;
  /** A VM has come a step further for the first time. */
  stepTaken: (step: TimedStep) => void;
  /** The cluster was restored to an older state: what this house knows is worth nothing any more. */
  onHistoryWentBack: () => void;
  /** That it was, before this house; until every node has said what it holds. */
  past: Past;
};

/** The running machinery. */
export type House = ReturnType<typeof startOperator>;

/** Milliseconds between two looks at everything: no wake-up has to arrive. */
const resyncMs = 60_000;
/** Milliseconds between two looks for nodes that have fallen silent: silence raises no event by itself. */
const silenceLookMs = 1_000;

/**
 * Starts informers and reconcilers. Nothing is decided before every cache is complete and this process leads. `stopped` resolves when the last pass
 * has ended after an abort of `signal`.
 */
export const startOperator = (parts: OperatorParts) => {
  const { kube, clock, log, chance, signal } = parts;
  const fleet = makeFleet(clock.monotonicMs);
  const queues = { vm: makeQueue({ clock, chance }), image: makeQueue({ clock, chance }), disk: makeQueue({ clock, chance }), node: makeQueue({ clock, chance }) };
  const resources = { vm: resourceOf(virtualMachineKind), image: resourceOf(virtualMachineImageKind), disk: resourceOf(virtualDiskKind), node: resourceOf(hypervisorNodeKind) };
  const watch = { kube, log, clock, chance, signal, onHistoryWentBack: parts.onHistoryWentBack };

  const vms = startInformer<VirtualMachine>({
    ...watch, resource: resources.vm, since: parts.past.newest.get('vm'), parse: (raw) => virtualMachine.parse(raw),
    indexes: {
      machine: (vm) => [machineUidOf(vm)],
      image: ({ metadata, spec }) => imagesOf(metadata.namespace, spec),
      node: ({ status }) => (status.nodeName === undefined ? [] : [status.nodeName]),
    },
    onChange: (change) => {
      queues.vm.add(change.key);
      // A VM that is gone lets go of its images.
      const held = change.is === 'gone' ? change.last : vms.held(change.key);
      if (held?.is !== 'object') return;
      for (const image of imagesOf(held.object.metadata.namespace, held.object.spec)) queues.image.add(image);
      if (held.object.status.nodeName !== undefined) queues.node.add(held.object.status.nodeName);
    },
  });
  const images = startInformer({
    ...watch, resource: resources.image, since: parts.past.newest.get('image'), parse: (raw) => virtualMachineImage.parse(raw), indexes: { uid: ({ metadata }) => [metadata.uid] },
    onChange: (change) => {
      queues.image.add(change.key);
      for (const held of vms.by('image', change.key)) queues.vm.add(held.key);
      // Its nodes drop their copies.
      if (change.is === 'gone') for (const { node } of fleet.members()) queues.node.add(node);
    },
  });
  const nodes = startInformer({
    ...watch, resource: resources.node, since: parts.past.newest.get('node'), parse: (raw) => hypervisorNode.parse(raw),
    onChange: ({ key }) => {
      queues.node.add(key);
      wakeUnplaced(vms, queues.vm);
    },
  });
  const disks = startInformer<VirtualDisk>({
    ...watch, resource: resources.disk, since: parts.past.newest.get('disk'), parse: (raw) => virtualDisk.parse(raw),
    indexes: { node: ({ status }) => (status.nodeName === undefined ? [] : [status.nodeName]), vm: ({ metadata, status }) => [`${metadata.namespace}/${status.vmName}`] },
    onChange: (change) => {
      queues.disk.add(change.key);
      const held = change.is === 'gone' ? change.last : disks.held(change.key);
      if (held?.is !== 'object') return;
      const { metadata, status } = held.object;
      queues.vm.add(`${metadata.namespace}/${status.vmName}`);
      if (status.nodeName !== undefined) queues.node.add(status.nodeName);
    },
  });
  const namespaces = startInformer({ ...watch, resource: namespaceResource, since: parts.past.newest.get('namespace'), parse: (raw) => namespaceObject.parse(raw), onChange: () => {} });
  const byName = { vm: vms, image: images, disk: disks, node: nodes, namespace: namespaces };
  const informers = Object.values(byName);

  fleet.listen({
    vm: (about) => {
      for (const held of vms.by('machine', about.uid)) {
        queues.vm.add(held.key);
        for (const disk of disks.by('vm', held.key)) queues.disk.add(disk.key);
      }
    },
    image: (uid) => { for (const held of images.by('uid', uid)) queues.image.add(held.key); },
    node: (node) => {
      queues.node.add(node);
      for (const held of vms.by('node', node)) queues.vm.add(held.key);
      for (const held of disks.by('node', node)) queues.disk.add(held.key);
      for (const held of images.all()) queues.image.add(held.key);
      wakeUnplaced(vms, queues.vm);
    },
  });

  const recorder = makeRecorder({ kube, instance: parts.instance, log, clock, signal });
  const now = clock.now;
  const { monotonicMs } = clock;
  const keep = async (informer: Informer<unknown>, write: () => ReturnType<typeof patchStatus>) => {
    if (!parts.mayWrite()) throw new Fault('NotLeader', 'this operator does not lead: it writes nothing');
    const result = await write();
    if (result.is === 'written') informer.accept(result.object);
  };
  const statusWriter = (informer: Informer<unknown>, resource: Resource) => (object: Versioned, status: unknown) =>
    keep(informer, () => patchStatus(kube, resource, object, status, signal));
  const finalizersWriter = (informer: Informer<unknown>, resource: Resource) => (object: Versioned, finalizers: readonly string[]) =>
    keep(informer, () => setFinalizers(kube, resource, object, finalizers, signal));
  const writeFinalizers = finalizersWriter(vms, resources.vm);
  const record = (disk: KeptDisk, keptFor: KeptFor) =>
    keep(disks, () => recordDisk({ kube, resource: resources.disk, signal }, disk, keptFor));
  const { clusterId, past } = parts;
  let inherited: ReadonlySet<string> = new Set();
  const reconcilers = {
    vm: makeVmReconciler({
      clusterId, inherited: (uid) => inherited.has(uid), historyWentBack: () => past.wentBack, vms, images, disks, namespaces, nodes, fleet, now, monotonicMs, stepTaken: parts.stepTaken,
      writeStatus: statusWriter(vms, resources.vm),
      writeFinalizers, recordDisk: record,
      secret: (namespace, name) => readSecret(kube, namespace, name, signal),
      event: ({ metadata }, { type, reason, note }) => recorder.record({ regarding: { apiVersion, kind: 'VirtualMachine', ...metadata }, type, reason, action: 'Reconcile', note }),
    }),
    image: makeImageReconciler({ images, vms, fleet, now, writeFinalizers: finalizersWriter(images, resources.image), writeStatus: statusWriter(images, resources.image) }),
    disk: makeDiskReconciler({
      disks, vms, nodes, fleet, now, writeStatus: statusWriter(disks, resources.disk), writeFinalizers: finalizersWriter(disks, resources.disk),
      remove: (disk) => keep(disks, () => deleteObject(kube, resources.disk, disk, signal)),
    }),
    node: makeNodeReconciler({
      clusterId, nodes, vms, disks, namespaces, images, fleet, now, monotonicMs, recordDisk: record,
      writeStatus: statusWriter(nodes, resources.node),
    }),
  };
  const endHands: EndHands = {
    fleet, writeFinalizers, nodeGone: (name) => isNodeGone(name, { nodes, fleet }),
    namespaceUid: (name) => namespaces.get(name)?.metadata.uid,
    unrecorded: (node, vm) => unrecordedOf(node, vm, { disks, fleet }),
    recordDisk: async (disk, { namespace = '', name: vm }, node) => {
      const of = namespaces.get(namespace)?.metadata;
      if (!of) throw new Fault('NamespaceUnknown', `namespace ${namespace} is not known yet`);
      // One that is being deleted takes no new object: its node goes on keeping the disk.
      if (of.deletionTimestamp === undefined) await record(disk, { namespace, namespaceUid: of.uid, vm, node });
    },
  };
  /** An object that can't be parsed is told so and left alone, but for one that was deleted: a VM is ended, an image that nobody uses is let go. */
  const guarded = (informer: Informer<unknown>, resource: Resource, reconcile: (key: string) => Promise<Outcome>) => async (key: string): Promise<Outcome> => {
    const held = informer.held(key);
    if (held?.is !== 'unparsable') return reconcile(key);
    if (resource === resources.image && (await letGoUnparsable(held, { vms, writeFinalizers: finalizersWriter(images, resources.image) }))) return settled;
    const node = resource === resources.vm ? endsOn(held) : undefined;
    return node === undefined ? reportUnparsable(held, now(), statusWriter(informer, resource)) : endUnparsable(held, node, endHands);
  };

  const synced = Promise.all(informers.map((each) => each.synced));
  const everything = () => {
    for (const kind of ['vm', 'image', 'disk', 'node'] as const) for (const held of byName[kind].all()) queues[kind].add(held.key);
  };
  const links = new Map<string, string>();
  const lookForSilence = () => {
    if (past.wentBack && nodes.all().length > 0 && nodes.all().every(({ meta }) => fleet.hasListed(meta.name))) past.wentBack = false;
    for (const { meta: { name } } of nodes.all()) {
      const link = fleet.link(name);
      if (links.get(name) !== link) fleet.tellListeners((listener) => listener.node(name));
      links.set(name, link);
    }
  };
  const loops = async () => {
    try {
      await orAborted(Promise.all([synced, parts.leading]), signal);
      // What a follower holds may be as old as a watch that died unseen: a node would be told what was wanted then, under our newer epoch.
      await orAborted(Promise.all(informers.map((each) => each.refresh())), signal);
    } catch {
      return;
    }
    fleet.begin();
    inherited = new Set(vms.list().flatMap(({ metadata, status }) => (status.nodeName === undefined ? [metadata.uid] : [])));
    const resync = setInterval(everything, resyncMs);
    const silence = setInterval(lookForSilence, silenceLookMs);
    const shared = { log, signal };
    try {
      await Promise.all([
        run({ ...shared, name: 'vm', reconcile: guarded(vms, resources.vm, reconcilers.vm), queue: queues.vm, workers: 16 }),
        run({ ...shared, name: 'image', reconcile: guarded(images, resources.image, reconcilers.image), queue: queues.image, workers: 4 }),
        run({ ...shared, name: 'disk', reconcile: guarded(disks, resources.disk, reconcilers.disk), queue: queues.disk, workers: 4 }),
        run({ ...shared, name: 'node', reconcile: guarded(nodes, resources.node, reconcilers.node), queue: queues.node, workers: 4 }),
      ]);
    } finally {
      clearInterval(resync);
      clearInterval(silence);
    }
    await Promise.all(informers.map((each) => each.stopped));
  };
  return {
    fleet, vms, images, disks, nodes, synced,
    hasSynced: () => informers.every((each) => each.hasSynced()),
    /** Has the next term know what this one has seen last. */
    handOver: () => {
      for (const [of, informer] of Object.entries(byName)) noteNewest(past, of, informer.newest());
    },
    stopped: loops(),
  };
};

/** The part of a Namespace that the operator reads. */
const namespaceObject = z.object({ metadata: objectMeta });

/** Keys of the images that the disks of a VM refer to. */
const imagesOf = (namespace: string, { disks }: VirtualMachine['spec']): string[] =>
  disks.flatMap((disk) => { const name = imageOf(disk); return name === undefined ? [] : [`${namespace}/${name}`]; });

/** A change of a node may make room: every VM without one is looked at again. */
const wakeUnplaced = (vms: Informer<VirtualMachine>, queue: Queue): void => {
  for (const { metadata, status } of vms.list()) if (status.nodeName === undefined) queue.add(`${metadata.namespace}/${metadata.name}`);
};
