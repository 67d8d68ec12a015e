import type { VmSpec, VmStatus } from '#crds/v1alpha1/virtualmachine.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import { fromMiB, toMiB } from '#crds/kit/quantity.ts';
import type { VmFacts } from './facts.ts';

/** One disk as its node is told; `imageUid` is what it starts from, `kept` the kept disk that it is. Pure. */
export const desiredDisk = ({ name, cdrom, size, bus, bootOrder, readOnly, cache, limits, deletionPolicy }: VmSpec['disks'][number], imageUid: string | undefined, kept?: string): DesiredVm['disks'][number] => ({
  name,
  ...(imageUid === undefined ? {} : { imageUid }),
  ...(cdrom === undefined ? {} : { cdrom: true }),
  ...(size === undefined ? {} : { sizeMiB: toMiB(size) }),
  ...(bus === undefined ? {} : { bus }),
  ...(bootOrder === undefined ? {} : { bootOrder }),
  ...(readOnly === true ? { readOnly } : {}),
  ...(cache === undefined ? {} : { cache }),
  ...(limits === undefined ? {} : { limits: {
    ...(limits.iops === undefined ? {} : { iops: limits.iops }),
    ...(limits.bytesPerSecond === undefined ? {} : { mibPerSecond: toMiB(limits.bytesPerSecond) }),
  } }),
  ...(deletionPolicy === 'Retain' ? { retain: true } : {}),
  ...(kept === undefined ? {} : { kept }),
});

/** Names of the disks that outlive the VM. Pure. */
export const retainedDisks = ({ disks }: Pick<VmSpec, 'disks'>): string[] => disks.flatMap(({ name, deletionPolicy }) => (deletionPolicy === 'Retain' ? [name] : []));

type DiskFacts = Pick<VmFacts, 'vm' | 'report' | 'toldDisks'>;

/**
 * Disks of which it is known that the spec had them: its status says so, or this operator told the node. One that a node holds
 * beside these is nobody's: a cluster that was restored to an older state has forgotten it, and that is no order to remove it. Pure.
 */
const knownDisks = ({ vm: { spec, status }, toldDisks }: DiskFacts): ReadonlySet<string> => new Set([
  ...spec.disks.map(({ name }) => name),
  ...(status.disks ?? []).filter(({ state }) => state !== 'Unclaimed').map(({ name }) => name),
  ...(toldDisks ?? []),
]);

/**
 * Disks of which it is recorded that the node has made them. A node that was installed anew knows nothing of them, and must not make them
 * anew: the data of their user would be blank silently. Pure.
 */
export const madeDisks = ({ status: { disks = [] } }: Pick<VmFacts['vm'], 'status'>): string[] =>
  disks.filter(({ state }) => state !== 'Empty').map(({ name }) => name);

/** Disks that an edit took away and that the node may still have. Pure. */
export const removedDisks = (facts: DiskFacts): NonNullable<DesiredVm['removedDisks']> => {
  const wanted = new Set(facts.vm.spec.disks.map(({ name }) => name));
  const { report } = facts;
  return [...knownDisks(facts)]
    .filter((name) => !wanted.has(name) && (report === undefined || report.disks.some((disk) => disk.name === name)))
    .toSorted().slice(0, 24).map((name) => ({ name }));
};

/** The disks of a VM as its node reports them; what a silent node said last stays. Pure. */
export const disksOf = (facts: DiskFacts): VmStatus['disks'] => {
  const known = knownDisks(facts);
  return facts.report?.disks.map(({ name, sizeMiB, format, state }) => ({
    name, ...(state === 'Empty' ? {} : { size: fromMiB(sizeMiB), format }), state: known.has(name) ? state : 'Unclaimed',
  })) ?? facts.vm.status.disks;
};
