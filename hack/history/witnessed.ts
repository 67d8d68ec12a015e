import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { until } from '../bed/until.ts';
import { eventsOf, type HistoryEvent, monotonicMs, parseEvents } from './events.ts';

const waitMs = 120_000;

/** The witness of a folder of VMs, at work. Disposing it ends it. */
export type Witness = AsyncDisposable & {
  /** All that it has told so far; waits until it has looked at everything once more. */
  told: () => Promise<HistoryEvent[]>;
};

/** Starts a witness that tells in `file`; resolves when it looks. It ends with this process. */
export const startWitness = async (vms: string, file: string): Promise<Witness> => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'witness.ts'), vms, file], { stdio: ['ignore', 'inherit', 'inherit'], env: { PATH: process.env['PATH'], NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'] } });
  await once(child, 'spawn');
  const told = async (): Promise<HistoryEvent[]> => {
    const asked = monotonicMs();
    return until('the witness to look', async () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the witness ended (${child.signalCode ?? `code ${child.exitCode}`})`);
      const events = parseEvents(await readFile(file, 'utf8').catch(() => ''));
      // The one that it says first may have begun before, and not all of it is looked at each time.
      return eventsOf(events, 'looked').filter(({ t }) => t > asked).length > 1 && events;
    }, waitMs);
  };
  await told();
  return {
    told,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    },
  };
};
