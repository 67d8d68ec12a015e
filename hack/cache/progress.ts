/**
 * What is being made, told about once a second to whoever shows it.
 *
 *   cached -> it was there     waiting -> another run makes it     making -> we do, for `seconds` so far     made
 */
export type Progress = { what: string; is: 'cached' | 'waiting' | 'making' | 'made'; seconds: number };

/** Told about progress; must not throw. */
export type OnProgress = (progress: Progress) => void;

/** Runs `work` and meanwhile tells, at its start and each second, for how long it has been making `what`. */
export const tellingMaking = async <T>(what: string, onProgress: OnProgress, work: () => Promise<T>): Promise<T> => {
  const start = performance.now();
  const seconds = () => Math.round((performance.now() - start) / 1000);
  onProgress({ what, is: 'making', seconds: 0 });
  const timer = setInterval(() => onProgress({ what, is: 'making', seconds: seconds() }), 1000);
  try {
    const result = await work();
    onProgress({ what, is: 'made', seconds: seconds() });
    return result;
  } finally {
    clearInterval(timer);
  }
};
