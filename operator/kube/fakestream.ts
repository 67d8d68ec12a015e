/** One open watch of the fake API: frames go in by hand and come out as an async iterable. */
export type FakeStream = {
  push: (frame: unknown) => void;
  /** Ends it: in good order, or by throwing. */
  end: (fault?: unknown) => void;
  frames: (signal: AbortSignal) => AsyncGenerator<unknown>;
};

/** An open stream without frames. */
export const makeStream = (): FakeStream => {
  const waiting: unknown[] = [];
  let ended: { fault: unknown } | undefined;
  let wake = Promise.withResolvers<void>();
  return {
    push: (frame) => {
      if (ended !== undefined) return;
      waiting.push(JSON.parse(JSON.stringify(frame)));
      wake.resolve();
    },
    end: (fault) => {
      ended ??= { fault };
      wake.resolve();
    },
    frames: async function* (signal) {
      const abort = (): void => wake.resolve();
      signal.addEventListener('abort', abort, { once: true });
      try {
        for (;;) {
          signal.throwIfAborted();
          if (waiting.length > 0) yield waiting.shift();
          else if (ended !== undefined) {
            if (ended.fault !== undefined) throw ended.fault;
            return;
          } else {
            await wake.promise;
            wake = Promise.withResolvers<void>();
          }
        }
      } finally {
        signal.removeEventListener('abort', abort);
      }
    },
  };
};
