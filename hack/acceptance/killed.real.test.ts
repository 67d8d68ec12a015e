// The agent is killed, stopped and doubled; guests must not notice, and no VM may ever have two QEMUs.
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { cpuOvercommit } from '#operator/vm/overhead.ts';
import { counted, countGuest } from '../bed/countguest.ts';
import { vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { catching, until } from '../bed/until.ts';
import { watchQemus } from '../bed/watchqemus.ts';
import { startWhole } from '../bed/whole.ts';

const stepMs = 120_000;

describe('an agent that is killed', () => {
  // Of the agents that are started; changed by the test of a QEMU that hangs.
  const env: Record<string, string> = {};
  const all = opened(() => startWhole({ env }));

  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();

  test('F01: ten running VMs run on without it, in the same QEMUs, and are re-adopted less than 10 s after the next one was started', async () => {
    await all.me.apply({
      apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'counting', namespace: 'default' },
      spec: { source: { http: { url: all.web.serve('/counting.raw', { is: 'bytes', bytes: Buffer.from(countGuest()) }) } }, format: 'raw' },
    });
    const names = Array.from({ length: 10 }, (_, n) => `ten-${n}`);
    await Promise.all(names.map((name) => all.me.apply(vmManifest(name, { memory: { size: '32Mi' } }, 'default', 'counting'))));
    // A small machine has no room for so many vCPUs: the rest is placed by hand.
    const room = cpus().length * cpuOvercommit;
    await until('as many to be placed as fit', async () => (await placed(names)) >= Math.min(room, names.length), stepMs);
    await Promise.all(names.map((name) => all.me.placeVm(name, 'node-1')));
    const vms = await Promise.all(names.map((name) => all.me.vmIs(name, 'Ready=True Running', stepMs)));
    const uids = vms.map(({ metadata }) => metadata.uid);
    const uptimes = () => Promise.all(uids.map(async (uid) => counted(await all.node.serial(uid))));
    const longer = (than: readonly number[]) => until('each guest to count two seconds more', async () => (await uptimes()).every((seconds, at) => seconds.length > (than[at] ?? 0) + 2), stepMs);
    await longer([]);
    const before = await pids();
    expect(before.length).toBe(names.length);

    const old = (await all.node.lines()).length;
    await all.node.end('SIGKILL');
    await longer((await uptimes()).map(({ length }) => length));
    expect(await pids()).toEqual(before);
    const startedMs = Date.now();
    await all.node.start();
    const told = await until('a report of each', async () => {
      const reports = (await all.node.lines()).slice(old).filter(({ msg, state }) => msg === 'vm' && state === 'running');
      return uids.every((uid) => reports.some((each) => each.uid === uid)) && reports;
    }, stepMs);
    expect(Math.max(...uids.map((uid) => (told.find((each) => each.uid === uid)?.time ?? Infinity) - startedMs))).toBeLessThan(10_000);
    await all.node.joined();
    // One is asked for something new and does it: it is adopted, not only seen.
    await all.me.patchVm('ten-3', { spec: { powerState: 'Paused' } });
    await all.me.vmIs('ten-3', 'Ready=True Paused', stepMs);
    // Nobody began anew, or lost a second.
    for (const seconds of await uptimes()) expect(seconds).toEqual(seconds.map((_, at) => at));
    expect(await pids()).toEqual(before);
    await Promise.all(names.map((name) => all.me.deleteVm(name)));
    await Promise.all(names.map((name) => all.me.vmGone(name, stepMs)));
    expect(await pids()).toEqual([]);
    for (const uid of uids) expect(await all.node.traces(uid)).toEqual([]);
  }, 600_000);
  const placed = async (names: readonly string[]) => (await Promise.all(names.map((name) => all.me.vm(name)))).filter(({ status }) => status.nodeName !== undefined).length;

  // What a start leaves behind, in its order; each is a point at which the agent may be gone.
  const inRun = (file: string) => async (uid: string) => {
    const [run] = await readdir(all.node.paths.runs(uid)).catch(() => []);
    return run !== undefined && existsSync(join(all.node.paths.run(uid, run), file));
  };
  const inVm = (file: string) => async (uid: string) => existsSync(join(all.node.paths.vm(uid), file));
  const qemuOf = async (uid: string) => (await all.node.qemus()).filter((each) => each.uid === uid).map(({ pid }) => pid);
  test.each<[string, (uid: string) => Promise<boolean>, 'starting' | 'there']>([
    ['the desire is on disk', async (uid) => existsSync(join(all.node.paths.ledger, `${uid}.json`)), 'starting'],
    ['the base of the disk is linked', inVm('disks/root.base'), 'starting'],
    ['the disk is made', inVm('disks/root.qcow2'), 'starting'],
    ['the seed is written', inVm('seed.img'), 'starting'],
    ['the run has its directory', inVm('runs'), 'starting'],
    ['the start is written down', inRun('start.json'), 'starting'],
    ['the sockets have their directory', async (uid) => existsSync(all.node.paths.sockets(uid)), 'starting'],
    ['the launcher has the lock', inVm('lock'), 'starting'],
    ['the run is named under the lock', inVm('run'), 'starting'],
    ['the input of the console is there', inVm('serial.in'), 'starting'],
    ['QEMU is told its first words', inRun('qmp.in'), 'starting'],
    ['QEMU is there', async (uid) => (await qemuOf(uid)).length > 0, 'there'],
    ['QEMU listens', async (uid) => existsSync(join(all.node.paths.sockets(uid), 'qmp.sock')), 'there'],
    ['the guest runs', async (uid) => (await all.node.serial(uid)) !== '', 'there'],
  ])('F14: when %s: one QEMU, which runs, and nothing else', async (_step, happened, qemu) => {
    const name = `walk-${_step.replaceAll(/[^a-z]/gi, '').toLowerCase().slice(0, 40)}`;
    await all.me.apply(vmManifest(name, { memory: { size: '32Mi' } }));
    const { uid } = (await all.me.vm(name)).metadata;
    await using watch = watchQemus(all.node, uid);
    await catching('the step', () => happened(uid), stepMs);
    await all.node.end('SIGKILL');
    const orphaned = await qemuOf(uid);
    await all.node.start();
    await all.me.vmIs(name, 'Ready=True Running', stepMs);
    await until('the guest is up', async () => (await all.node.serial(uid)).includes('up'), stepMs);
    const mine = await qemuOf(uid);
    expect([mine.length, watch.seen.most]).toEqual([1, 1]);
    // One that was there is taken up as it is, not ended for another.
    if (qemu === 'there') expect([mine, [...watch.seen.pids]]).toEqual([orphaned, orphaned]);
    expect((await all.me.vm(name)).status.epoch).toBe(1);
    await all.me.deleteVm(name);
    await all.me.vmGone(name, stepMs);
    expect(await all.node.traces(uid)).toEqual([]);
  }, 4 * stepMs);

  test('one whose QEMU program hangs takes up what runs: nothing of that waits for the probe', async () => {
    await all.me.apply(vmManifest('unproved', { memory: { size: '32Mi' } }));
    const { metadata: { uid } } = await all.me.vmIs('unproved', 'Ready=True Running', stepMs);
    const before = await qemuOf(uid);
    const folder = await mkdtemp(join(tmpdir(), 'strato-hang-'));
    try {
      await writeFile(join(folder, 'qemu-system-x86_64'), '#!/bin/sh\nexec sleep 60\n', { mode: 0o755 });
      env['PATH'] = `${folder}:${process.env.PATH}`;
      const old = (await all.node.lines()).length;
      await all.node.end('SIGKILL');
      await all.node.start();
      const since = async () => (await all.node.lines()).slice(old);
      await until('it to be taken up', async () => (await since()).some((each) => each.msg === 'vm' && each.uid === uid && each.state === 'running'), stepMs);
      await all.me.patchVm('unproved', { spec: { powerState: 'Paused' } });
      await all.me.vmIs('unproved', 'Ready=True Paused', stepMs);
      expect((await since()).filter(({ msg }) => msg === 'what QEMU can do on this node')).toEqual([]);
      expect(await qemuOf(uid)).toEqual(before);
    } finally {
      delete env['PATH'];
      await all.node.end('SIGKILL');
      await all.node.start();
      await all.node.joined();
      await rm(folder, { recursive: true });
    }
    await all.me.deleteVm('unproved');
    await all.me.vmGone('unproved', stepMs);
  }, 3 * stepMs);

  test('one whose token is rotated under it goes on in its session; with a token of another node it is refused until it has its own again', async () => {
    const heard = async (sentence: string) => (await all.node.lines()).filter(({ msg }) => msg === sentence).length;
    const [renewed, joined] = [await heard('credential renewed'), await heard('joined the operator')];
    await all.node.giveToken(await all.cluster.token({ node: 'node-1', seconds: 3_000 }));
    await until('the renewal', async () => (await heard('credential renewed')) > renewed, stepMs);
    expect(await heard('joined the operator')).toBe(joined);
    await all.node.giveToken(await all.cluster.token({ node: 'node-2' }));
    await until('the refusal', () => all.operator.lines.some(({ fields }) => fields['node'] === 'node-1' && fields['reason'] === 'TokenRefused'), stepMs);
    await all.node.giveToken(await all.cluster.token({ node: 'node-1', seconds: 3_000 }));
    await until('it to be back', async () => (await heard('joined the operator')) > joined && all.operator.running.term()?.house.fleet.link('node-1') === 'connected', stepMs);
  }, 4 * stepMs);

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
