// What the witness must see is done on real QEMUs here, by hand: the agent would not do it.
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../bed/until.ts';
import { eventsOf, type HistoryEvent } from './events.ts';
import { bootsOf, diaryGuest } from './guest.ts';
import { judge } from './judge.ts';
import { startWitness, type Witness } from './witnessed.ts';

const waitMs = 180_000;
const uid = '00000000-0000-4000-8000-000000000001';

describe('the witness', () => {
  let folder: string;
  let vm: string;
  let witness: Witness;
  let children: ChildProcess[] = [];
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-witness-'));
    vm = join(folder, 'vms', uid);
    await mkdir(join(vm, 'disks'), { recursive: true });
    await writeFile(join(vm, 'disks', 'root.raw'), diaryGuest());
    witness = await startWitness(join(folder, 'vms'), join(folder, 'events'));
  }, waitMs);
  afterEach(async () => {
    await witness[Symbol.asyncDispose]();
    for (const child of children) if (child.exitCode === null && child.signalCode === null) await kill(child);
    children = [];
    await rm(folder, { recursive: true, force: true });
  }, waitMs);

  const kill = async (child: ChildProcess) => {
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
  };
  /** A QEMU without any lock, at work in `cwd`; resolves when its guest has booted for the `nth` time. */
  const boot = async (nth: number, cwd = vm, disk = 'disks/root.raw') => {
    const child = spawn('qemu-system-x86_64', [
      '-M', 'q35', '-accel', 'tcg', '-m', '16', '-nodefaults', '-no-user-config', '-display', 'none',
      '-chardev', `file,id=serial,append=on,path=${join(vm, 'serial.log')}`, '-serial', 'chardev:serial',
      '-blockdev', JSON.stringify({ driver: 'raw', 'node-name': 'd', file: { driver: 'file', filename: disk, locking: 'off' } }), '-device', 'virtio-blk-pci,drive=d,bootindex=0',
    ], { cwd, stdio: 'ignore' });
    children.push(child);
    await once(child, 'spawn');
    await until(`boot ${nth}`, async () => bootsOf(await readFile(join(vm, 'serial.log'), 'latin1').catch(() => '')).length >= nth, waitMs);
    return child;
  };
  /** What was told last of each process: it may have been seen before it was QEMU, and before that had opened its disk. */
  const lastOfEach = <T extends { pid: number }>(told: readonly T[]): T[] => [...new Map(told.map((each) => [each.pid, each])).values()];
  const wrong = (history: readonly HistoryEvent[]) => [...new Set(judge(history).map(({ rule }) => rule))].toSorted();

  test('one machine after the other: their starts, disks, boots and ends; nothing wrong', async () => {
    await kill(await boot(1));
    await kill(await boot(2));
    const told = await witness.told();
    expect(lastOfEach(eventsOf(told, 'process')).map((each) => [each.uid, each.program, each.pid])).toEqual(children.map(({ pid }) => [uid, 'qemu-system-x86_64', pid]));
    expect(lastOfEach(eventsOf(told, 'ended')).map(({ pid }) => pid)).toEqual(children.map(({ pid }) => pid));
    const disks = eventsOf(told, 'opened');
    expect(disks.map(({ pid, path }) => [pid, path])).toEqual(children.map(({ pid }) => [pid, join(vm, 'disks', 'root.raw')]));
    expect(new Set(disks.map(({ disk }) => disk)).size).toBe(1);
    expect(eventsOf(told, 'boot').map(({ count }) => count)).toEqual([1, 2]);
    expect(eventsOf(told, 'file').map(({ path }) => path)).toEqual(['disks/root.raw']);
    expect(wrong(told)).toEqual([]);
  }, waitMs);

  test('two machines with one disk, in one VM or from elsewhere', async () => {
    await boot(1);
    await boot(2);
    expect(wrong(await witness.told())).toEqual(['one QEMU for a VM', 'one QEMU for a disk']);
    const [first] = children;
    if (first) await kill(first);
    await boot(3, '/', join(vm, 'disks', 'root.raw'));
    const [, second, third] = children.map(({ pid }) => pid);
    expect(judge(await witness.told()).map(({ what }) => what)).toEqual(expect.arrayContaining([expect.stringContaining(`processes ${second} and ${third} had the disk`)]));
  }, waitMs);

  test('a disk that is made anew under its name, and the guest that finds out', async () => {
    await kill(await boot(1));
    await writeFile(join(vm, 'disks', 'root.raw.new'), diaryGuest());
    await rename(join(vm, 'disks', 'root.raw.new'), join(vm, 'disks', 'root.raw'));
    await boot(2);
    const told = await until('the boot to be told', async () => {
      const events = await witness.told();
      return eventsOf(events, 'boot').length > 1 && events;
    }, waitMs);
    expect(judge(told).map(({ what }) => what)).toEqual([expect.stringContaining('is another file'), expect.stringMatching(/booted from the disk \w+; before it was \w+/)]);
  }, waitMs);
});
