/** One measured number, and what it should be. `goal` reads like `<= 60`, or is `none`. */
export type Figure = { bench: string; figure: string; value: number; unit: string; goal: string; met: boolean };

/** A figure that shall be at most `most`; rounded to three digits after the point. */
export const atMost = (bench: string, figure: string, value: number, unit: string, most: number): Figure => ({
  bench, figure, value: Math.round(value * 1000) / 1000, unit, goal: `<= ${most}`, met: value <= most,
});

/** A figure that stands beside others and has no goal. */
export const beside = (bench: string, figure: string, value: number, unit: string): Figure => ({ bench, figure, value: Math.round(value * 1000) / 1000, unit, goal: 'none', met: true });

/** The value below which a share of all values lies, by the nearest rank. `share` is in (0, 1]; there must be a value. */
export const quantile = (values: readonly number[], share: number): number => {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
};
