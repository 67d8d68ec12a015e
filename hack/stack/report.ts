import type { OnProgress, Progress } from '../cache/progress.ts';

/** Where a report goes: a terminal shows the running steps in one changing line, anything else gets plain lines. */
export type Screen = { write: (text: string) => void; isTerminal: boolean; columns: () => number; nowMs: () => number };

/** Shows steps as they go. Steps may run side by side; each ends with one line of its own. */
export type Report = Disposable & {
  /** Runs `work` as a step. What it returns may say more about itself by `describe`. */
  step: <T>(name: string, work: (tell: (doing: string) => void) => Promise<T>, describe?: (result: T) => string) => Promise<T>;
  /** A line between the steps. */
  say: (line: string) => void;
};

const plainEachMs = 15_000;

/** 1234 is `1.2 s`; from 90 seconds on minutes are told. */
export const showDuration = (ms: number): string => {
  const seconds = ms / 1000;
  return seconds < 90 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
};

/** The line of running steps, cut to the width of the terminal. */
export const showRunning = (running: readonly { name: string; doing: string; ms: number }[], columns: number): string => {
  const text = running.map(({ name, doing, ms }) => `${doing === '' ? name : `${name}: ${doing}`} ${Math.floor(ms / 1000)} s`).join(' · ');
  const line = `… ${text}`;
  return line.length < columns ? line : `${line.slice(0, Math.max(1, columns - 2))}…`;
};

/** A report on a screen. A step fails with ✗; one that stops for what another failed with has –. Disposing it ends its timer and clears the changing line. */
export const makeReport = (screen: Screen): Report => {
  const told = new Set<unknown>();
  const running = new Map<symbol, { name: string; doing: string; sinceMs: number; toldMs: number }>();
  const clear = () => screen.isTerminal && screen.write('\r\x1b[K');
  const line = (text: string) => {
    clear();
    screen.write(`${text}\n`);
  };
  const seen = () => [...running.values()].map((each) => ({ ...each, ms: screen.nowMs() - each.sinceMs }));
  const draw = () => {
    if (screen.isTerminal && running.size > 0) screen.write(`\r\x1b[K${showRunning(seen(), screen.columns())}`);
    if (screen.isTerminal) return;
    for (const each of running.values()) {
      if (screen.nowMs() - each.toldMs < plainEachMs) continue;
      each.toldMs = screen.nowMs();
      line(showRunning([{ ...each, ms: screen.nowMs() - each.sinceMs }], Number.POSITIVE_INFINITY));
    }
  };
  const timer = setInterval(draw, 500);
  return {
    step: async (name, work, describe) => {
      const key = Symbol(name);
      const sinceMs = screen.nowMs();
      const mine = { name, doing: '', sinceMs, toldMs: sinceMs };
      running.set(key, mine);
      const end = (sign: string, more: string) => {
        running.delete(key);
        line(`${sign} ${name.padEnd(28)} ${showDuration(screen.nowMs() - sinceMs).padStart(8)}${more === '' ? '' : `   ${more}`}`);
      };
      try {
        const result = await work((doing) => { mine.doing = doing; });
        end('✓', describe?.(result) ?? '');
        return result;
      } catch (thrown) {
        // What ended one step is handed to the others as their reason to stop.
        const again = told.has(thrown);
        told.add(thrown);
        end(again ? '–' : '✗', again ? 'not ended' : '');
        throw thrown;
      }
    },
    say: line,
    [Symbol.dispose]: () => {
      clearInterval(timer);
      clear();
    },
  };
};

/** The report of this process's terminal or pipe. */
export const openReport = (): Report => makeReport({
  write: (text) => process.stdout.write(text),
  isTerminal: process.stdout.isTTY === true,
  columns: () => process.stdout.columns ?? 80,
  nowMs: () => performance.now(),
});

/** What a cached thing tells about its making, as the words of a step. */
export const tellProgress = (tell: (doing: string) => void): OnProgress => (progress: Progress) => {
  const words = { cached: '', waiting: `waiting for another run to make ${progress.what}`, making: `making ${progress.what}`, made: '' };
  tell(words[progress.is]);
};
