import { Fault } from '#crds/kit/fault.ts';
import type { DiskSpec } from './driver.ts';

/**
 * The size in MiB that a new disk gets: what is asked for, or the size of its image. Pure.
 * Faults: DiskTooSmall when it is asked to be smaller than its image, or is blank and has no size.
 */
export const sizeOf = ({ name, image, sizeMiB }: Pick<DiskSpec, 'name' | 'image' | 'sizeMiB'>): number => {
  const least = image?.virtualSizeMiB ?? 1;
  const size = sizeMiB ?? image?.virtualSizeMiB ?? 0;
  if (size >= least) return size;
  throw new Fault(
    'DiskTooSmall',
    image
      ? `disk ${name}: ${size} MiB is asked for, but its image needs ${least} MiB; ask for at least that or leave size out`
      : `disk ${name}: a blank disk needs a size`,
    { retry: 'never' },
  );
};
