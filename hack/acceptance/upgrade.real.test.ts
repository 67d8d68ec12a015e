// F02: an agent of this version takes over from one of the version before; what that wrote is what the golden files of version 1 hold.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { openScene, stepMs } from './scene.ts';

const record = z.record(z.string(), z.unknown());
const file = z.object({ version: z.int(), entry: record });
const golden = file.parse(JSON.parse(await readFile(new URL('../../agent/vm/golden/vm-v1.json', import.meta.url), 'utf8'))).entry;
const membersOf = (of: unknown): string[] => Object.keys(record.parse(of));
const pick = (from: unknown, names: readonly string[]): Record<string, unknown> => Object.fromEntries(Object.entries(record.parse(from)).filter(([name]) => names.includes(name)));

/** A ledger file as version 1 would have written it: only what it knew. */
const asVersion1 = (text: string): string => {
  const { entry } = file.parse(JSON.parse(text));
  const old = { ...pick(entry, membersOf(golden)), desired: pick(entry['desired'], membersOf(golden['desired'])) };
  return `${JSON.stringify({ version: 1, checksum: digestOf(old), entry: old })}\n`;
};

describe('F02: the agent is replaced by a newer version', () => {
  const scene = opened(openScene);

  test('that reads the ledger of the one before: guests run on, and follow edits', async () => {
    const { all, tiny, runs, edit, qemuOf, removed } = scene;
    const uids = await Promise.all(['one', 'two', 'three'].map((name) => runs(tiny(name))));
    const pids = async () => (await Promise.all(uids.map(qemuOf))).flat().map(({ pid }) => pid);
    const before = await pids();
    await all.node.end('SIGKILL');
    for (const uid of uids) {
      const path = join(all.node.paths.ledger, `${uid}.json`);
      await writeFile(path, asVersion1(await readFile(path, 'utf8')));
    }
    await writeFile(join(all.node.paths.ledger, 'leader.json'), '{"version":1,"leaderEpoch":1}\n');
    await all.node.start();
    await all.node.joined();
    for (const name of ['one', 'two', 'three']) {
      await all.me.vmIs(name, 'Ready=True Running', stepMs);
      await all.me.vmIs(name, 'RestartRequired=False UpToDate', stepMs);
    }
    expect(await pids()).toEqual(before);
    await edit('one', { powerState: 'Paused' });
    await all.me.vmIs('one', 'Ready=True Paused', stepMs);
    await until('the ledger to be of this version', async () => file.parse(JSON.parse(await readFile(join(all.node.paths.ledger, `${uids[0]}.json`), 'utf8'))).version > 1, stepMs);
    expect([await pids(), verdict(await all.me.node('node-1'), 'Ready')]).toEqual([before, 'Ready=True Ready']);
    for (const [at, name] of ['one', 'two', 'three'].entries()) expect(await removed(name, uids[at] ?? '')).toEqual([]);
  }, 300_000);
});
