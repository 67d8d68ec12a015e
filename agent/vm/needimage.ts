import type { Step, VmFacts } from './facts.ts';

/**
 * Says which images have left the node's cache and are needed by disks that are still to be made: nobody else fetches them
 * again. Pure.
 */
export const needImageSteps = ({ entry, sight, disks, images }: VmFacts): Step[] => {
  const { desired, ending } = entry;
  if (sight.is === 'unknown' || ending || !desired || desired.powerState === 'Stopped') return [];
  const uids = desired.disks.flatMap(({ name, imageUid, kept }) =>
    imageUid !== undefined && kept === undefined && images.get(imageUid)?.observed?.cached === false && disks.get(name)?.is === 'absent' && !entry.disks.includes(name) ? [imageUid] : []);
  return [...new Set(uids)].map((uid) => ({ do: 'needImage', uid }));
};
