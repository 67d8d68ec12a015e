import { copyFile, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeEditor } from './editor.ts';
import { type HistoryEvent, inOrder, monotonicMs } from './events.ts';
import { judge } from './judge.ts';
import { makePerformer } from './perform.ts';
import { follow, readStandings } from './reader.ts';
import { makeRecord } from './record.ts';
import { type Act, scheduleOf } from './schedule.ts';
import { settle } from './settle.ts';
import { openStage, type Stage } from './stage.ts';
import type { Violation } from './violation.ts';

/** One history: all that happened, and what is wrong with it. `kept`: a folder with the record and the logs, when anything is, or when that was asked for. */
export type History = { events: readonly HistoryEvent[]; violations: readonly Violation[]; kept?: string };

/** What a history is made from. `keeps`: the record of a clean one is kept too; `tell` hears what is going on; `signal` ends it early and without a verdict. */
export type HistoryOptions = { seed: number; minutes: number; keeps?: boolean; tell: (line: string) => void; signal: AbortSignal };

// Restarts by policy come after 10 s and more; the rest of them is left to wait.
const waitForRestartsMs = 25_000;

/**
 * Plays a schedule on a stage of its own, lets everything settle, stops all VMs and starts them again, deletes them, and judges
 * what was seen. Faults: those of the stage, NotEnding; the signal's reason.
 */
export const runHistory = async ({ seed, minutes, keeps = false, tell, signal }: HistoryOptions): Promise<History> => {
  tell(`seed ${seed}, ${minutes} minutes`);
  await using stage = await openStage();
  signal.throwIfAborted();
  const began = monotonicMs();
  const record = makeRecord((event) => {
    if (event.is === 'did') tell(`${((event.t - began) / 1000).toFixed(1)} s: ${event.what}`);
  });
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const following = follow(stage.cluster.kube, record, either);
  try {
    const editor = makeEditor(stage.cluster.kube, record);
    const perform = makePerformer(stage, editor, record, either);
    await playAll(scheduleOf(seed, minutes), perform, failed, either);
    tell('the chaos is over');
    await stage.operator.ensure();
    await stage.agent.ensure();
    await settle(stage, record, 'after the chaos', waitForRestartsMs);
    for (const powerState of ['Stopped', 'Running'] as const) {
      tell(`all VMs are declared ${powerState}`);
      const now = await readStandings(stage.cluster.kube);
      await Promise.all(now.map(({ name }) => editor.insist(name, { powerState }, either)));
      await settle(stage, record, `declared ${powerState}`, 0);
    }
    tell('all VMs are deleted');
    const last = await readStandings(stage.cluster.kube);
    await Promise.all(last.map(({ name }) => editor.edit({ do: 'delete', name })));
    await settle(stage, record, 'deleted', 0);
    const events = inOrder([...record.events(), ...(await stage.witness.told())]);
    const violations = judge(events);
    return { events, violations, ...(keeps || violations.length > 0 ? { kept: await keep(stage, events, seed) } : {}) };
  } finally {
    failed.abort(new Error('the history is over'));
    await following;
  }
};

/** Each lane does its acts one after the other, at their time or as soon as it can. */
const playAll = async (schedule: readonly (Act & { atMs: number })[], perform: (act: Act) => Promise<void>, failed: AbortController, signal: AbortSignal): Promise<void> => {
  const began = monotonicMs();
  await Promise.all([...Map.groupBy(schedule, ({ lane }) => lane).values()].map(async (acts) => {
    try {
      for (const { atMs, ...act } of acts) {
        await delay(Math.max(0, began + atMs - monotonicMs()), undefined, { signal });
        await perform(act);
      }
    } catch (thrown) {
      failed.abort(thrown);
      throw thrown;
    }
  }));
};

const keep = async ({ node, operatorLog, cluster }: Stage, events: readonly HistoryEvent[], seed: number): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), `strato-history-${seed}-`));
  await writeFile(join(folder, 'events.jsonl'), events.map((each) => `${JSON.stringify(each)}\n`).join(''));
  for (const [name, file] of Object.entries({ agent: node.logFile, operator: operatorLog, audit: cluster.audit })) await copyFile(file, join(folder, `${name}.log`)).catch(() => {});
  return folder;
};
