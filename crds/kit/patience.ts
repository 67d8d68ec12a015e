const parts = 4;

/**
 * A deadline that aborts after `ms`, as AbortSignal.timeout does, and counts a time in which this process stood still (it was stopped, or got no
 * processor) as a quarter of that at most: what was answered meanwhile is heard before it is called late.
 */
export const patience = (ms: number): AbortSignal => {
  const late = new AbortController();
  const wait = (left: number): void => {
    setTimeout(() => {
      if (left > 1) wait(left - 1);
      else late.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError'));
    }, ms / parts).unref();
  };
  wait(parts);
  return late.signal;
};
