/**
 * Lets `count` acts run at a time, the others in the order they came. One that is aborted while it waits never runs.
 */
export const slots = (count: number) => {
  let free = count;
  const waiting: (() => void)[] = [];
  const enter = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      signal.throwIfAborted();
      if (free > 0) {
        free -= 1;
        resolve();
        return;
      }
      const go = (): void => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = (): void => {
        waiting.splice(waiting.indexOf(go), 1);
        reject(signal.reason);
      };
      waiting.push(go);
      signal.addEventListener('abort', leave, { once: true });
    });
  return async <T>(act: () => Promise<T>, signal: AbortSignal): Promise<T> => {
    await enter(signal);
    try {
      return await act();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free += 1;
    }
  };
};
