import type { LiveChange } from './change.ts';

// What is written into `plugging` before QEMU may have a change: the name of a disk, or one of these. No disk has such a name.

/** A card that is being plugged. */
export const cardKey = (name: string): string => `nic/${name}`;
/** A card whose forwards are being moved. */
export const forwardsKey = (name: string): string => `fwd/${name}`;
/** A disk whose limits are being set. */
export const limitsKey = (name: string): string => `lim/${name}`;
/** A CD drive whose medium is being changed. */
export const mediumKey = (name: string): string => `med/${name}`;
/** Memory is being given or asked back. */
export const memoryKey = 'mem/';
const cpusPrefix = 'cpus/';

/** The key of a change that may be made anew for whatever is wanted then; undefined for one that is recorded in another way, or does no harm. Pure. */
export const doubtOf = (change: LiveChange): string | undefined => {
  switch (change.is) {
    case 'cpus':
      return `${cpusPrefix}${change.cpus}`;
    case 'memory':
      return memoryKey;
    case 'limits':
      return limitsKey(change.name);
    case 'medium':
      return mediumKey(change.name);
    case 'plugNic':
    case 'unplugNic':
    case 'forwards':
    case 'plugDisk':
    case 'unplugDisk':
    case 'growDisk':
      return undefined;
  }
};

/** Of what is in doubt, that which is still so when a change was made. Pure. */
export const doubtsAfter = (plugging: readonly string[], change: LiveChange): string[] => {
  const ended = (): readonly string[] => {
    switch (change.is) {
      case 'plugNic':
      case 'unplugNic':
      case 'forwards':
        return [cardKey(change.name), forwardsKey(change.name)];
      case 'plugDisk':
      case 'unplugDisk':
        return [change.name, limitsKey(change.name), mediumKey(change.name)];
      case 'cpus':
        return plugging.filter((key) => key.startsWith(cpusPrefix));
      case 'memory':
      case 'limits':
      case 'medium':
      case 'growDisk':
        return [doubtOf(change) ?? ''];
    }
  };
  const gone = ended();
  return plugging.filter((key) => !gone.includes(key));
};

/** Most CPUs that a run of so many may have. Pure. */
export const mostCpus = (cpus: number, plugging: readonly string[]): number =>
  Math.max(cpus, ...plugging.flatMap((key) => (key.startsWith(cpusPrefix) ? [Number(key.slice(cpusPrefix.length))] : [])));
