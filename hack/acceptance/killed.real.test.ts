// The agent is killed, stopped and doubled; guests must not notice, and no VM may ever have two QEMUs.
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { cpuOvercommit } from '#operator/vm/overhead.ts';
import { vmManifest } from '../bed/objects.ts';
import { until } from '../bed/until.ts';
import { startWhole, type Whole } from '../bed/whole.ts';

const stepMs = 60_000;

describe('an agent that is killed', () => {
  let all: Whole;
  beforeAll(async () => {
    all = await startWhole();
  }, 300_000);
  afterAll(async () => {
    await all?.[Symbol.asyncDispose]();
  }, stepMs);

  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();

  test('with as many running VMs as fit, up to ten: they run on, in the same QEMUs, and are told of within 10 s', async () => {
    const names = Array.from({ length: Math.min(10, cpus().length * cpuOvercommit) }, (_, n) => `ten-${n}`);
    await Promise.all(names.map((name) => all.me.apply(vmManifest(name, { memory: { size: '32Mi' } }))));
    const vms = await Promise.all(names.map((name) => all.me.vmIs(name, 'Ready=True Running', 60_000)));
    await Promise.all(vms.map(({ metadata: { uid } }) => until(`guest ${uid}`, async () => (await all.node.serial(uid)).includes('up'), stepMs)));
    const before = await pids();
    expect(before.length).toBe(names.length);
    await all.node.end('SIGKILL');
    expect(await pids()).toEqual(before);
    await all.node.start();
    await all.node.joined();
    for (const { metadata: { uid } } of vms) await until(`a report of ${uid}`, async () => (await all.node.log()).split('"joined the operator"').at(-2)?.includes(uid), 10_000);
    // Each is asked for something new and does it: it is adopted, not only seen.
    await all.me.patchVm('ten-3', { spec: { powerState: 'Paused' } });
    await all.me.vmIs('ten-3', 'Ready=True Paused');
    expect(await pids()).toEqual(before);
    await Promise.all(names.map((name) => all.me.deleteVm(name)));
    await Promise.all(names.map((name) => all.me.vmGone(name)));
    expect(await pids()).toEqual([]);
    for (const { metadata: { uid } } of vms) expect(await all.node.traces(uid)).toEqual([]);
  }, 180_000);

  // What a start leaves behind, in its order; each is a point at which the agent may be gone.
  const inRun = (file: string) => async (uid: string) => {
    const [run] = await readdir(all.node.paths.runs(uid)).catch(() => []);
    return run !== undefined && existsSync(join(all.node.paths.run(uid, run), file));
  };
  const inVm = (file: string) => async (uid: string) => existsSync(join(all.node.paths.vm(uid), file));
  test.each<[string, (uid: string) => Promise<boolean>]>([
    ['the desire is on disk', async (uid) => existsSync(join(all.node.paths.ledger, `${uid}.json`))],
    ['the base of the disk is linked', inVm('disks/root.base')],
    ['the disk is made', inVm('disks/root.qcow2')],
    ['the seed is written', inVm('seed.img')],
    ['the run has its directory', inVm('runs')],
    ['the start is written down', inRun('start.json')],
    ['the sockets have their directory', async (uid) => existsSync(all.node.paths.sockets(uid))],
    ['the launcher has the lock', inVm('lock')],
    ['the run is named under the lock', inVm('run')],
    ['the input of the console is there', inVm('serial.in')],
    ['QEMU is told its first words', inRun('qmp.in')],
    ['QEMU is there', async (uid) => (await all.node.qemus()).some((each) => each.uid === uid)],
    ['QEMU listens', async (uid) => existsSync(join(all.node.paths.sockets(uid), 'qmp.sock'))],
    ['the guest runs', async (uid) => (await all.node.serial(uid)) !== ''],
  ])('when %s: one QEMU, which runs, and nothing else', async (_step, happened) => {
    const name = `walk-${_step.replaceAll(/[^a-z]/gi, '').toLowerCase().slice(0, 40)}`;
    await all.me.apply(vmManifest(name, { memory: { size: '32Mi' } }));
    const { uid } = (await all.me.vm(name)).metadata;
    const end = performance.now() + stepMs;
    while (!(await happened(uid))) {
      if (performance.now() > end) throw new Error('the step was never seen');
      await turn();
    }
    await all.node.end('SIGKILL');
    await all.node.start();
    await all.me.vmIs(name, 'Ready=True Running', stepMs);
    await until('the guest is up', async () => (await all.node.serial(uid)).includes('up'), stepMs);
    const mine = (await all.node.qemus()).filter((each) => each.uid === uid);
    expect(mine.length).toBe(1);
    expect((await all.me.vm(name)).status.epoch).toBe(1);
    await all.me.deleteVm(name);
    await all.me.vmGone(name, stepMs);
    expect(await all.node.traces(uid)).toEqual([]);
  }, 120_000);

  test('a second agent on the same folders refuses to start and leaves the first alone', async () => {
    const first = all.node.agent();
    const second = await all.node.start();
    await until('the second agent to end', () => second.exitCode !== null, stepMs);
    expect(second.exitCode).toBe(1);
    expect(await all.node.log()).toMatch(/another agent runs on this folder: it holds .*lock; end that one first/);
    expect(first.exitCode).toBeNull();
    first.kill('SIGKILL');
    await all.node.start();
    await all.node.joined();
  }, stepMs);
});
