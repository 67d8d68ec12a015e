/**
 * RE2 pattern of a size: a whole number of MiB, GiB or TiB, at most five digits of GiB. Whole MiB by its form, so no
 * rounding exists anywhere. A subset of the Kubernetes resource.Quantity. The same text guards zod and the CRD.
 */
export const sizePattern = '^([1-9][0-9]{0,7}Mi|[1-9][0-9]{0,4}Gi|[1-9]Ti)$';

const form = new RegExp(sizePattern);
const unitMiB: Readonly<Record<string, number>> = { Mi: 1, Gi: 1024, Ti: 1024 * 1024 };

/** A size that matches `sizePattern`, in MiB; NaN for any other text. */
export const toMiB = (size: string): number =>
  form.test(size) ? Number(size.slice(0, -2)) * (unitMiB[size.slice(-2)] ?? Number.NaN) : Number.NaN;

/** MiB in the largest exact unit: 2048 is `2Gi`. */
export const fromMiB = (sizeMiB: number): string =>
  sizeMiB > 0 && sizeMiB % 1024 === 0 ? `${sizeMiB / 1024}Gi` : `${sizeMiB}Mi`;
