import type { Hardware } from '#crds/wire/desired.ts';

/** Names of the disks that firmware tries to boot from, in that order: those with a bootOrder; the first of the list when none has one. Pure. */
export const bootNames = (disks: Hardware['disks']): string[] => {
  const ordered = disks.flatMap(({ name, bootOrder }) => (bootOrder === undefined ? [] : [{ name, bootOrder }])).toSorted((a, b) => a.bootOrder - b.bootOrder);
  return (ordered.length > 0 ? ordered : disks.slice(0, 1)).map(({ name }) => name);
};
