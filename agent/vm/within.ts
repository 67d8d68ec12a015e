import { Fault } from '#crds/kit/fault.ts';
import { patience } from '#crds/kit/patience.ts';

/** How long a look at a machine or a disk may take. */
export const lookMs = 10_000;

// Drivers end when their signal aborts. One that does not is given up after this.
const overrunMs = 5_000;

/**
 * Runs a job that gets a signal which aborts after `ms`, and returns even if the job does not obey it: then with Fault
 * DeadlineExceeded, and `overran` gets the promise of what is still under way.
 */
export const within = async <T>(
  ms: number,
  signal: AbortSignal,
  doing: string,
  job: (signal: AbortSignal) => Promise<T>,
  overran: (rest: Promise<unknown>) => void = () => {},
): Promise<T> => {
  const limit = AbortSignal.any([signal, patience(ms)]);
  const running = job(limit);
  let timer: NodeJS.Timeout | undefined;
  const { promise: late, reject } = Promise.withResolvers<never>();
  const arm = () => {
    timer ??= setTimeout(() => {
      overran(running.catch(() => {}));
      reject(new Fault('DeadlineExceeded', `${doing}: no answer after ${ms} ms`));
    }, overrunMs);
  };
  limit.addEventListener('abort', arm, { once: true });
  if (limit.aborted) arm();
  try {
    return await Promise.race([running, late]);
  } catch (thrown) {
    // The reason of a deadline names neither the job nor its object.
    if (limit.aborted && !signal.aborted && thrown === limit.reason) throw new Fault('DeadlineExceeded', `${doing}: no answer after ${ms} ms`, { cause: thrown });
    throw thrown;
  } finally {
    clearTimeout(timer);
    limit.removeEventListener('abort', arm);
  }
};
