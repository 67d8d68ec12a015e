// What a node's day brings: a guest that shouts, an agent that hangs or is killed for memory, a clock that jumps.
import { constants } from 'node:fs';
import { mkdir, open, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { hierarchiesOf } from '#agent/hypervisor/qemu/cgroup.ts';
import { serialBound } from '#agent/hypervisor/qemu/bound.ts';
import { vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import type { RealNodeOptions } from '../bed/realnode.ts';
import { until } from '../bed/until.ts';
import { bringImage, startWhole } from '../bed/whole.ts';
import { loopImage } from '../guest/loop.ts';

const stepMs = 120_000;
const mebibyte = 1024 * 1024;

describe('a node', () => {
  const options: RealNodeOptions = {};
  const all = opened(() => startWhole(options));
  beforeAll(async () => {
    for (const name of ['tick', 'flood'] as const) await bringImage(all, name, Buffer.from(loopImage(name)));
    for (const name of ['calm', 'ticking']) await all.me.apply(tiny(name, {}, name === 'calm' ? 'guest' : 'tick'));
    for (const name of ['calm', 'ticking']) await runs(name);
  }, 2 * stepMs);

  const tiny = (name: string, spec: Record<string, unknown> = {}, image = 'guest') => vmManifest(name, { memory: { size: '32Mi' }, ...spec }, 'default', image);
  const runs = (name: string) => all.me.vmIs(name, 'Ready=True Running', stepMs);
  const uidOf = async (name: string) => (await all.me.vm(name)).metadata.uid;
  const power = (name: string, powerState: string) => all.me.patchVm(name, { spec: { powerState } });
  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();
  const said = async (name: string) => (await stat(all.node.paths.serialLog(await uidOf(name)))).size;
  const saysMore = async (name: string) => {
    const before = await said(name);
    await until(`${name} to go on`, async () => (await said(name)) > before, stepMs);
  };
  /** Does something to the other VMs, to show that the agent does its work. */
  const works = async () => {
    await power('calm', 'Paused');
    await all.me.vmIs('calm', 'Ready=True Paused', stepMs);
    await power('calm', 'Running');
    await all.me.vmIs('calm', 'Ready=True Running', stepMs);
  };
  const rssMiB = async () => Number(/^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${all.node.agent().pid}/status`, 'utf8'))?.[1]) / 1024;

  test('has a guest that floods its serial port: the record stays bounded, the agent as small as it was, and it does its other work', async () => {
    await works();
    const before = await rssMiB();
    await all.me.apply(tiny('loud', {}, 'flood'));
    await runs('loud');
    let most = 0;
    let bounded = 0;
    for (let size = 0; bounded < 2;) {
      const next = await until('the record to change', async () => { const now = await said('loud'); return now !== size && now; }, stepMs);
      if (next < size) bounded += 1;
      most = Math.max(most, next);
      size = next;
    }
    // What comes in the seconds between two looks is on top.
    expect(most).toBeLessThan(4 * serialBound.most);
    await works();
    expect((await rssMiB()) - before).toBeLessThan(40);
    const uid = await uidOf('loud');
    await all.me.deleteVm('loud');
    await all.me.vmGone('loud', stepMs);
    expect(await all.node.traces(uid)).toEqual([]);
  }, 600_000);

  test('has an agent that hangs with a console open: no guest waits for it, nor for who reads and writes', async () => {
    const uid = await uidOf('ticking');
    const before = await pids();
    const reader = await open(all.node.paths.serialLog(uid), 'r');
    const writer = await open(all.node.paths.serialInput(uid), constants.O_WRONLY | constants.O_NONBLOCK);
    all.node.agent().kill('SIGSTOP');
    try {
      // Nobody takes what is typed: when the pipe is full that is the writer's trouble alone.
      for (let full = false; !full;) full = await writer.write(Buffer.alloc(4096, 0x71)).then(() => false, () => true);
      const { buffer } = await reader.read(Buffer.alloc(1), 0, 1, 0);
      expect(buffer.toString()).toBe('.');
      for (let round = 0; round < 5; round += 1) await saysMore('ticking');
      const { bytesRead } = await reader.read(Buffer.alloc(64 * 1024), 0, 64 * 1024, 0);
      expect(bytesRead).toBeGreaterThan(5);
    } finally {
      all.node.agent().kill('SIGCONT');
      await writer.close();
      await reader.close();
    }
    await works();
    await runs('ticking');
    expect(await pids()).toEqual(before);
  }, 300_000);

  test('has an agent that the kernel kills for memory: guests run on, and the next agent has them', async () => {
    const memory = hierarchiesOf(await readFile('/proc/self/mountinfo', 'utf8')).find(({ controllers }) => controllers.includes('memory'));
    const group = join(memory?.directory ?? '', `strato-test-${process.pid}`);
    const before = await pids();
    await all.node.end('SIGKILL');
    await mkdir(group);
    try {
      // Less than it needs to come up.
      await writeFile(join(group, 'memory.limit_in_bytes'), String(24 * mebibyte));
      options.under = ['/bin/sh', '-c', `echo $$ > ${join(group, 'cgroup.procs')}; exec "$@"`, 'sh'];
      const agent = await all.node.start();
      await until('the agent to be killed', () => agent.signalCode ?? false, stepMs);
      expect([agent.signalCode, /^oom_kill (\d+)$/m.exec(await readFile(join(group, 'memory.oom_control'), 'utf8'))?.[1]]).toEqual(['SIGKILL', expect.stringMatching(/[1-9]/)]);
      expect(await pids()).toEqual(before);
      await saysMore('ticking');
    } finally {
      delete options.under;
      await until('its group to be empty', () => rmdir(group).then(() => true), stepMs);
    }
    await all.node.start();
    await all.node.joined();
    await works();
    expect(await pids()).toEqual(before);
  }, 300_000);

  test('has a clock that jumps by a day, either way: no guest is restarted or forced by it, and what is due comes when it is due', async () => {
    const file = join(all.cluster.dir, 'faketime');
    const jump = (to: string) => writeFile(file, to);
    await jump('+0d');
    options.env = {
      LD_PRELOAD: '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1', FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1',
      // A clock that is set does not move the monotonic one. Source: clock_gettime(2).
      FAKETIME_DONT_FAKE_MONOTONIC: '1', DONT_FAKE_MONOTONIC: '1',
    };
    await all.node.end('SIGKILL');
    await all.node.start();
    await all.node.joined();
    const sessions = (await all.node.log()).split('"joined the operator"').length;
    /** How far ahead of ours the clock is that the agent logged by, at each line. */
    const loggedHours = async () => [...(await all.node.log()).matchAll(/"time":(\d+)/g)].map(([, time]) => (Number(time) - Date.now()) / 3_600_000);
    const lived = async () => {
      await works();
      await saysMore('ticking');
      expect((await all.node.log()).split('"joined the operator"').length).toBe(sessions);
    };
    const steady = await pids();
    // Longer than what is done within it takes on a busy machine.
    const graceMs = 120_000;
    await all.me.apply(tiny('deaf', { stop: { gracePeriodSeconds: graceMs / 1_000 } }));
    await all.me.apply(tiny('crashing', { restartPolicy: 'Always' }));
    for (const name of ['deaf', 'crashing']) await runs(name);
    const stopped = performance.now();
    await power('deaf', 'Stopped');
    await until('the stop to begin', async () => (await all.me.vm('deaf')).status.phase === 'Stopping', stepMs);
    const crashing = await uidOf('crashing');
    process.kill((await all.node.qemus()).find(({ uid }) => uid === crashing)?.pid ?? 0, 'SIGKILL');
    await until('the crash to be told', async () => (await all.me.vm('crashing')).status.lastExit?.reason === 'QemuCrashed', stepMs);
    await jump('+1d');
    await lived();
    await until('the clock of the agent to have jumped', async () => (await loggedHours()).some((hours) => hours > 20), stepMs);
    expect([(await all.me.vm('deaf')).status.phase, performance.now() - stopped < graceMs]).toEqual(['Stopping', true]);
    await jump('-1d');
    await lived();
    await until('the clock of the agent to have jumped back', async () => (await loggedHours()).some((hours) => hours < -20), stepMs);
    await all.me.vmIs('deaf', 'Ready=True Stopped', graceMs + stepMs);
    expect(performance.now() - stopped).toBeGreaterThan(graceMs - 1_000);
    expect((await all.me.vm('deaf')).status.lastExit?.reason).toBe('Forced');
    // Restarted in seconds, not in a day.
    await runs('crashing');
    await jump('+0d');
    await lived();
    expect(await pids()).toEqual(expect.arrayContaining(steady));
    for (const name of ['deaf', 'crashing']) await all.me.deleteVm(name);
    for (const name of ['deaf', 'crashing']) await all.me.vmGone(name, stepMs);
  }, 900_000);
});
