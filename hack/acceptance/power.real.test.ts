// What happens after a guest has ended, and how one is restarted, on real QEMU.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { hierarchiesOf } from '#agent/hypervisor/qemu/cgroup.ts';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { type BedOperator, startBedOperator } from '../bed/operator.ts';
import { until } from '../bed/until.ts';
import { watchQemus } from '../bed/watchqemus.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

describe('power', () => {
  let next: BedOperator | undefined;
  afterAll(() => next?.stop(), stepMs);
  const scene = opened(openScene);

  const status = async (name: string) => (await scene.all.me.vm(name)).status;
  const endsItself = async (name: string, uid: string) => {
    await scene.serialHas(uid, 'up');
    await scene.type(uid, 'q');
    await scene.all.me.vmIs(name, 'Ready=False GuestShutdown', stepMs);
  };

  test('L05: Always starts a guest again that powered itself off, later each time, and counts', async () => {
    const { all, runs, tiny, removed } = scene;
    const uid = await runs(tiny('always'));
    const delays: number[] = [];
    for (const count of [1, 2]) {
      await endsItself('always', uid);
      const told = await status('always');
      expect([told.phase, told.lastExit?.reason, verdict({ status: told }, 'Reconciling')]).toEqual(['Stopped', 'GuestShutdown', 'Reconciling=True GuestShutdown']);
      const again = await all.me.vmIs('always', 'Ready=True Running', bootMs);
      delays.push(Date.parse(again.status.timings?.running ?? '') - Date.parse(again.status.lastExit?.time ?? ''));
      expect(again.status.restartCount).toBe(count);
    }
    // By the clock of the node, with the start.
    expect(delays[0]).toBeGreaterThan(9_000);
    expect(delays[1]).toBeGreaterThan(19_000);
    expect(await removed('always', uid)).toEqual([]);
  }, 600_000);

  test('L05: OnFailure restarts after a crash of QEMU; Never does neither', async () => {
    const { all, runs, tiny, removed, qemuOf } = scene;
    const uids = { fails: await runs(tiny('fails', { restartPolicy: 'OnFailure' })), never: await runs(tiny('never', { restartPolicy: 'Never' })) };
    for (const uid of Object.values(uids)) for (const { pid } of await qemuOf(uid)) process.kill(pid, 'SIGKILL');
    const told = await all.me.vmIs('fails', 'Ready=False QemuCrashed', stepMs);
    expect(told.status.lastExit).toMatchObject({ reason: 'QemuCrashed', signal: 'SIGKILL' });
    await all.me.vmIs('never', 'Stalled=True QemuCrashed', stepMs);
    await all.me.vmIs('fails', 'Ready=True Running', bootMs);
    await endsItself('fails', uids.fails);
    await all.me.vmIs('fails', 'Stalled=True GuestShutdown', stepMs);
    expect([await qemuOf(uids.fails), await qemuOf(uids.never)]).toEqual([[], []]);
    for (const [name, uid] of Object.entries(uids)) expect(await removed(name, uid)).toEqual([]);
  }, 600_000);

  test('L08: another restartToken restarts exactly once, also when the operator restarts midway', async () => {
    const { all, linux, runs, edit, removed, serialHas, qemuOf } = scene;
    const uid = await runs(linux('token', { restartToken: 'a' }));
    await serialHas(uid, 'STRATO ready');
    expect((await status('token')).restartTokenObserved).toBe('a');
    const [before] = await qemuOf(uid);
    await using watch = watchQemus(all.node, uid);
    await edit('token', { restartToken: 'b' });
    await all.me.vmIs('token', 'Ready=False Stopping', stepMs);
    await all.operator.stop();
    next = await startBedOperator(all.cluster, { port: Number(new URL(all.operator.url).port) });
    const restarted = await until('the token to be honoured', async () => {
      const now = await all.me.vm('token');
      return now.status.restartTokenObserved === 'b' && verdict(now) === 'Ready=True Running' && now;
    }, bootMs);
    const [after] = await qemuOf(uid);
    expect([restarted.status.lastExit?.reason, after?.pid === before?.pid]).toEqual(['Stopped', false]);
    await serialHas(uid, 'STRATO ready');
    expect([watch.seen.most, [...watch.seen.pids]]).toEqual([1, [before?.pid, after?.pid]]);
    expect(await removed('token', uid)).toEqual([]);
  }, 400_000);

  test('a guest whose kernel panics and hangs is told of, and started again as after a failure', async () => {
    const { all, linux, runs, removed } = scene;
    const panics = '#!/bin/sh\n[ -e /dev/vdb ] || exit 0\necho 0 > /proc/sys/kernel/panic\necho c > /proc/sysrq-trigger\n';
    const uid = await runs(linux('panics', { restartPolicy: 'OnFailure', cloudInit: { userData: panics } }));
    const told = await all.me.vmIs('panics', 'Ready=False GuestPanicked', bootMs);
    expect(told.status.lastExit?.reason).toBe('GuestPanicked');
    expect(verdict(told, 'Reconciling')).toBe('Reconciling=True GuestPanicked');
    expect(await removed('panics', uid)).toEqual([]);
  }, 400_000);

  /** Leaves the group of a VM so much memory more than it has now. */
  const bounded = async (uid: string, moreBytes: number) => {
    const memory = hierarchiesOf(await readFile('/proc/self/mountinfo', 'utf8')).find(({ version, controllers }) => version === 2 || controllers.includes('memory'));
    const [now, limit] = memory?.version === 2 ? ['memory.current', 'memory.max'] : ['memory.usage_in_bytes', 'memory.limit_in_bytes'];
    const group = join(memory?.directory ?? '', 'strato', uid);
    await writeFile(join(group, limit), String(Number(await readFile(join(group, now), 'utf8')) + moreBytes));
  };

  test("one whose QEMU the node's kernel ends for lack of memory is told of as such, and started again as after a failure", async () => {
    const { all, linux, runs, removed, serialHas, type } = scene;
    const uid = await runs(linux('hungry', { memory: { size: '384Mi' }, restartPolicy: 'OnFailure' }));
    await serialHas(uid, 'STRATO ready');
    await bounded(uid, 16 * 1024 ** 2);
    await type(uid, '\ndd if=/dev/zero of=/run/eaten bs=1M count=200\n');
    const told = await all.me.vmIs('hungry', 'Ready=False OutOfMemory', bootMs);
    expect(told.status.lastExit).toMatchObject({ reason: 'OutOfMemory', signal: 'SIGKILL' });
    expect(verdict(told, 'Reconciling')).toBe('Reconciling=True OutOfMemory');
    expect(await removed('hungry', uid)).toEqual([]);
  }, 400_000);

  test('a guest that reboots itself stays in its machine', async () => {
    const { linux, runs, removed, serialHas, qemuOf, all } = scene;
    const once = '#!/bin/sh\n[ "$(cut -d. -f1 /proc/uptime)" -lt 1000 ] && sleep 1 && reboot -f\n';
    const uid = await runs(linux('reboots', { cloudInit: { userData: once } }));
    const before = await qemuOf(uid);
    await serialHas(uid, /STRATO seed[^]*STRATO seed/);
    expect((await qemuOf(uid)).map(({ pid }) => pid)).toEqual(before.map(({ pid }) => pid));
    expect((await all.me.vm('reboots')).status.lastExit).toBeUndefined();
    expect(await removed('reboots', uid)).toEqual([]);
  }, 400_000);
});
