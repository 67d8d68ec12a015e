// F02: an agent of this build takes over from one that was built before: from ledger files as the golden ones of version 1, and from a real older build.
// STRATO_OLDER_COMMIT=COMMIT npm run test:upgrade takes that build. A node that gets another QEMU is the same matter.
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { boards } from '#agent/hypervisor/qemu/board.ts';
import { findProgram } from '#agent/hypervisor/qemu/probe.ts';
import { digestOf } from '#crds/kit/digest.ts';
import { verdict } from '../bed/objects.ts';
import { openOlderBuild } from '../bed/olderbuild.ts';
import { opened } from '../bed/opened.ts';
import type { RealNodeOptions } from '../bed/realnode.ts';
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
  const options: RealNodeOptions = {};
  const scene = opened(() => openScene(options));
  const replaced = async () => {
    await scene.all.node.end('SIGTERM');
    await scene.all.node.start();
    await scene.all.node.joined();
  };

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

  test('an older build starts guests, this one takes over while they run: they keep process and console, follow edits, and end as told', async () => {
    const { all, tiny, runs, edit, qemuOf, serialHas, type, removed } = scene;
    await using older = await openOlderBuild(process.env['STRATO_OLDER_COMMIT']);
    options.build = older.directory;
    await replaced();
    delete options.build;
    const command = await readFile(`/proc/${all.node.agent().pid}/cmdline`, 'utf8');
    expect(command).toContain(join(older.directory, 'agent', 'main.ts'));
    const uids = { stays: await runs(tiny('stays')), quits: await runs(tiny('quits', { restartPolicy: 'Never' })) };
    const pids = async () => (await Promise.all(Object.values(uids).map(qemuOf))).flat().map(({ pid }) => pid);
    for (const uid of Object.values(uids)) await serialHas(uid, 'up');
    const [before, said] = [await pids(), await all.node.serial(uids.quits)];
    await replaced();
    for (const name of ['stays', 'quits']) {
      await all.me.vmIs(name, 'Ready=True Running', stepMs);
      await all.me.vmIs(name, 'RestartRequired=False UpToDate', stepMs);
    }
    expect([before.length, await pids(), await all.node.serial(uids.quits)]).toEqual([2, before, said]);
    await edit('stays', { powerState: 'Paused' });
    await all.me.vmIs('stays', 'Ready=True Paused', stepMs);
    // The console that the older build made still reaches the guest.
    await type(uids.quits, 'q');
    const ended = await all.me.vmIs('quits', 'Stalled=True GuestShutdown', stepMs);
    expect([ended.status.lastExit, await pids()]).toEqual([expect.objectContaining({ reason: 'GuestShutdown', code: 0 }), before.slice(0, 1)]);
    for (const [name, uid] of Object.entries(uids)) expect(await removed(name, uid)).toEqual([]);
  }, 400_000);

  test('a node whose QEMU is upgraded keeps the machine type of a VM over its power cycle; a new VM has the new default', async () => {
    const { all, tiny, runs, edit, qemuOf, removed } = scene;
    // QEMU as it was in an older version: what it makes is real, only its default is that of then.
    const folder = await mkdtemp(join(tmpdir(), 'strato-qemu-'));
    const { program } = boards.amd64;
    const real = await findProgram(program, process.env.PATH ?? '');
    const then = 'pc-q35-6.2';
    await writeFile(join(folder, program), `#!/bin/sh\n[ "$*" = '-machine help' ] || exec ${real} "$@"\n${real} -machine help | sed 's/(alias of pc-q35-[^)]*)/(alias of ${then})/'\n`, { mode: 0o755 });
    await chmod(folder, 0o755);
    const typeOf = async (name: string) => (await all.me.vm(name)).status.resolved?.machine;
    const runsAs = async (uid: string) => (await qemuOf(uid)).map(({ command }) => command[command.indexOf('-machine') + 1]?.split(',')[0]);
    try {
      options.env = { PATH: `${folder}:${process.env.PATH}` };
      await replaced();
      delete options.env;
      const uid = await runs(tiny('frozen', { stop: { mode: 'Force' } }));
      expect([await typeOf('frozen'), await runsAs(uid)]).toEqual([then, [then]]);
      await replaced();
      const fresh = await runs(tiny('fresh'));
      const now = await typeOf('fresh');
      expect([now === then, await runsAs(fresh)]).toEqual([false, [now]]);
      await edit('frozen', { powerState: 'Stopped' });
      await all.me.vmIs('frozen', 'Ready=True Stopped', stepMs);
      await edit('frozen', { powerState: 'Running' });
      await all.me.vmIs('frozen', 'Ready=True Running', stepMs);
      expect([await typeOf('frozen'), await runsAs(uid)]).toEqual([then, [then]]);
      expect([await removed('frozen', uid), await removed('fresh', fresh)]).toEqual([[], []]);
    } finally {
      await rm(folder, { recursive: true });
    }
  }, 400_000);
});
