/** Numbers that look random and are the same for the same seed, on every machine. */
export type Chance = {
  /** In [0, 1). */
  next: () => number;
  /** A whole number from `least` to `most`, both included. */
  between: (least: number, most: number) => number;
  /** One of several; there must be one. */
  oneOf: <const T>(these: readonly [T, ...T[]]) => T;
  /** A pause of an average length, in milliseconds: most are shorter, some much longer, as between independent events. */
  pauseMs: (averageMs: number) => number;
};

/** Chance from a seed of 32 bits. Source: mulberry32 by T. Ettinger, public domain. */
export const chanceOf = (seed: number): Chance => {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    between: (least, most) => least + Math.floor(next() * (most - least + 1)),
    oneOf: (these) => these[Math.floor(next() * these.length)] ?? these[0],
    pauseMs: (averageMs) => Math.round(-Math.log(1 - next()) * averageMs),
  };
};
