/** So much per second on average, and so much at once. */
export type Rate = { perSecond: number; atOnce: number };

/**
 * Counts what is spent of a rate (a token bucket, full at first). `spend` always spends, also what is not there, and gives the milliseconds until the
 * debt is paid; 0 when there is none.
 */
export const makeBudget = ({ perSecond, atOnce }: Rate, monotonicMs: () => number) => {
  let left = atOnce;
  let asOfMs = monotonicMs();
  return {
    spend: (amount: number): number => {
      const nowMs = monotonicMs();
      left = Math.min(atOnce, left + ((nowMs - asOfMs) / 1_000) * perSecond) - amount;
      asOfMs = nowMs;
      return left >= 0 ? 0 : Math.ceil((-left / perSecond) * 1_000);
    },
  };
};
