/** Whether something goes on: `late` aborts when nothing has moved for so long. */
export type Pace = Disposable & { late: AbortSignal; moved: () => void };

/** A deadline for work of which nobody knows how much it is: it begins anew with each step forward, so that a slow disk makes no failure of it. */
export const paceOf = (ms: number): Pace => {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), ms).unref();
  return { late: late.signal, moved: () => void timer.refresh(), [Symbol.dispose]: () => clearTimeout(timer) };
};
