import { z } from 'zod';
import { canonical } from '#crds/kit/digest.ts';
import { type Outcome, settled, waiting } from '#crds/kit/outcome.ts';
import { dated } from '#crds/v1alpha1/condition.ts';
import { condition, type ObjectMeta } from '#crds/v1alpha1/meta.ts';
import { vmFinalizer } from '#crds/v1alpha1/names.ts';
import { deviceName, uid as uidForm } from '#crds/wire/desired.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import type { Fleet } from './fleet/fleet.ts';
import type { Held } from './kube/frame.ts';
import type { Versioned } from './kube/patch.ts';

/** An object that our schema refuses, for instance one that was stored under an older one. */
export type Unparsable = Extract<Held<unknown>, { is: 'unparsable' }>;

const loose = z.object({ status: z.record(z.string(), z.unknown()).catch({}) });
const list = z.array(z.unknown()).catch([]);
const ours = new Set(['Ready', 'Stalled', 'Reconciling']);

/** The stored status of such an object. */
const statusIn = (raw: unknown): Record<string, unknown> => loose.parse(raw).status;

/**
 * The status that says so: Ready=False and Stalled=True by reason SpecInvalid. Everything else in it stays as it is: where the VM is bound is not
 * forgotten because its spec can't be read. Pure.
 */
export const statusOfUnparsable = ({ meta, message, raw }: Unparsable, now: Date): Record<string, unknown> => {
  const old = statusIn(raw);
  const conditions = list.parse(old['conditions']).flatMap((each) => { const { data } = condition.safeParse(each); return data ? [data] : []; });
  const said = `nothing is done about this object: ${message}`;
  const verdicts = dated([
    { type: 'Ready', status: 'False', reason: 'SpecInvalid', message: said },
    { type: 'Stalled', status: 'True', reason: 'SpecInvalid', message: said },
  ], conditions, meta.generation, now);
  return { ...old, observedGeneration: meta.generation, conditions: [...verdicts, ...conditions.filter(({ type }) => !ours.has(type))] };
};

const adopted = z.object({ status: z.object({ machineUid: uidForm.optional().catch(undefined) }).catch({}) }).catch({ status: {} });

/** The uid under which nodes know the machine of such a VM: its own, or the one that it had adopted. Pure. */
export const machineUidIn = ({ meta, raw }: Unparsable): string => adopted.parse(raw).status.machineUid ?? meta.uid;

/** The node that such a VM is bound to, if that can be read. Pure. */
export const boundIn = ({ raw }: Unparsable): string | undefined => ending.parse(raw).status.nodeName;

const ending = z.object({
  spec: z.object({ deletionProtection: z.unknown() }).catch({ deletionProtection: undefined }),
  status: z.object({ nodeName: z.string().min(1).max(253).optional() }).catch({}),
});

/**
 * The node that shall end a VM that can't be parsed: it was deleted, is not protected, and its binding can be read. Pure. Nothing but a delete
 * ends it, and who deletes it need not be able to mend it first.
 */
export const endsOn = ({ meta, raw }: Unparsable): string | undefined => {
  const { spec, status } = ending.parse(raw);
  const ends = meta.deletionTimestamp !== undefined && meta.finalizers.includes(vmFinalizer) && (spec.deletionProtection === undefined || spec.deletionProtection === false);
  return ends ? status.nodeName : undefined;
};

/** What ends an unparsable VM. */
export type EndHands = {
  fleet: Pick<Fleet, 'doom' | 'isAbsent' | 'keepsDisks' | 'release'>;
  /** Whether a node is gone for good: its HypervisorNode was deleted while its agent is silent. */
  nodeGone: (node: string) => boolean;
  writeFinalizers: (object: Versioned, finalizers: readonly string[]) => Promise<void>;
  /** Disks of a machine that its node keeps and that no VirtualDisk stands for. */
  unrecorded: (node: string, vm: { namespace: string; name: string; uid: string }) => readonly KeptDisk[];
  /** Makes the VirtualDisk of a disk that outlives such a VM. */
  recordDisk: (disk: KeptDisk, vm: ObjectMeta, node: string) => Promise<void>;
  /** The uid of a namespace; undefined while it is not known. */
  namespaceUid: (namespace: string) => string | undefined;
};

const retaining = z.object({ spec: z.object({ disks: list }) }).catch({ spec: { disks: [] } });
const retained = z.object({ name: deviceName, deletionPolicy: z.literal('Retain') });

/** Names of the disks that outlive such a VM, as far as they can be read. Pure. */
const retainedIn = ({ raw }: Unparsable): string[] => retaining.parse(raw).spec.disks.flatMap((each) => retained.safeParse(each).data?.name ?? []).slice(0, 64);

/** Has the node end the VM; lets its object go when the node says that it is absent, or is gone for good itself. */
export const endUnparsable = async (held: Unparsable, node: string, { fleet, nodeGone, writeFinalizers, unrecorded, recordDisk, namespaceUid }: EndHands): Promise<Outcome> => {
  const { meta } = held;
  const { namespace = '', name } = meta;
  const uid = machineUidIn(held);
  if (!fleet.isAbsent(node, uid) && !nodeGone(node)) {
    const disks = retainedIn(held);
    const of = namespaceUid(namespace);
    if (disks.length > 0 && fleet.keepsDisks(node) === false) return waiting(`the agent of node ${node} can not keep disk ${disks.join(', ')} after its VM; update it`, 30_000);
    if (disks.length > 0 && of === undefined) return waiting(`namespace ${namespace} is not known yet`, 2_000);
    fleet.doom(node, uid, 'vm', disks.length > 0 && of !== undefined ? { namespace, namespaceUid: of, vm: name, disks } : undefined);
    return waiting(`node ${node} to end the VM`, 2_000);
  }
  for (const disk of unrecorded(node, { namespace, name, uid })) await recordDisk(disk, meta, node);
  await writeFinalizers({ metadata: versionOf(meta) }, meta.finalizers.filter((each) => each !== vmFinalizer));
  fleet.release(node, uid);
  return settled;
};

/** Says of an unparsable object that it is one; touches nothing else. */
export const reportUnparsable = async (held: Unparsable, now: Date, writeStatus: (object: Versioned, status: unknown) => Promise<void>): Promise<Outcome> => {
  const old = statusIn(held.raw);
  const status = statusOfUnparsable(held, now);
  if (canonical(status) !== canonical(old)) await writeStatus({ metadata: versionOf(held.meta), status: old }, status);
  return settled;
};

const versionOf = ({ name, namespace, resourceVersion, finalizers }: ObjectMeta) => ({ name, namespace, resourceVersion, finalizers });
