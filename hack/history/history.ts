// npm run history -- --seed N --minutes M
import { parseArgs } from 'node:util';
import { messageOf } from '#crds/kit/fault.ts';
import { shownSummary, shownViolation } from './print.ts';
import { runHistory } from './run.ts';
import { scheduleOf, shownAct } from './schedule.ts';

const usage = `usage: npm run history -- [--seed N] [--minutes M] [--keep] [--plan]
  --seed N     a whole number from 0 to 4294967295; another one each time when unset
  --minutes M  how long processes are killed and VMs edited, for instance 0.5 (default 2)
  --keep       keeps the record and the logs of a clean history too
  --plan       only prints what would be done
Kills, freezes and doubles agent, operator, API server and QEMUs while VMs are edited, with real QEMUs on a real API server,
and watches every QEMU from outside. Needs root and what ./hack/up has installed. Ends with 0 when the history is clean.`;

const numberOf = (name: string, text: string, least: number, most: number, whole: boolean): number => {
  const value = Number(text);
  if (text.trim() !== '' && value >= least && value <= most && (!whole || Number.isInteger(value))) return value;
  throw new Error(`--${name} ${text}: give a${whole ? ' whole' : ''} number from ${least} to ${most}\n${usage}`);
};

const main = async (): Promise<number> => {
  const { values } = parseArgs({ options: { seed: { type: 'string' }, minutes: { type: 'string' }, plan: { type: 'boolean' }, keep: { type: 'boolean' }, help: { type: 'boolean' } } });
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : numberOf('seed', values.seed, 0, 2 ** 32 - 1, true);
  const minutes = numberOf('minutes', values.minutes ?? '2', 0.05, 1_000, false);
  if (values.plan) {
    for (const { atMs, ...act } of scheduleOf(seed, minutes)) console.log(`${(atMs / 1000).toFixed(3).padStart(9)} s  ${act.lane.padEnd(7)}  ${shownAct(act)}`);
    return 0;
  }
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ending.abort(new Error(signal)));
  console.log(`to play this schedule again: npm run history -- --seed ${seed} --minutes ${minutes}`);
  const history = await runHistory({ seed, minutes, keeps: values.keep ?? false, tell: (line) => console.error(line), signal: ending.signal });
  for (const violation of history.violations) console.log(shownViolation(violation, history.events));
  console.log(shownSummary(history));
  if (history.kept !== undefined) console.log(`the record and the logs are in ${history.kept}`);
  if (history.violations.length === 0) {
    console.log(`seed ${seed}: the history is clean`);
    return 0;
  }
  console.log(`seed ${seed}: ${history.violations.length} violations`);
  console.log(`to play this schedule again: npm run history -- --seed ${seed} --minutes ${minutes}`);
  return 1;
};

main().then(
  (code) => { process.exitCode = code; },
  (error: unknown) => {
    console.error(messageOf(error));
    process.exitCode = 2;
  },
);
