// N04: a node reboots while the control plane is away. What was to run comes back from the ledger; and a record that is damaged costs its own VM alone.
import { randomUUID } from 'node:crypto';
import { readFile, readdir, readlink, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { lockFd } from '#agent/hypervisor/qemu/launcher.ts';
import { openCgroups } from '#agent/hypervisor/qemu/cgroup.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { withoutBedDisks } from '../bed/disk.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { type BedOperator, startBedOperator } from '../bed/operator.ts';
import type { RealNodeOptions } from '../bed/realnode.ts';
import { until } from '../bed/until.ts';
import { startWhole } from '../bed/whole.ts';

const stepMs = 120_000;
const bootIdFile = '/proc/sys/kernel/random/boot_id';

describe('a node that comes up', () => {
  const options: RealNodeOptions = {};
  let operator: BedOperator | undefined;
  afterAll(() => operator?.stop(), stepMs);
  const all = opened(() => startWhole(options));
  const uids = new Map<string, string>();
  beforeAll(async () => {
    const policies = { always: 'Always', failure: 'OnFailure', never: 'Never' };
    for (const [name, restartPolicy] of Object.entries(policies)) await all.me.apply(tiny(name, { restartPolicy }));
    for (const name of ['paused', 'stopped']) await all.me.apply(tiny(name));
    for (const name of [...Object.keys(policies), 'paused', 'stopped']) uids.set(name, (await runs(name)).metadata.uid);
    await power('paused', 'Paused');
    await all.me.patchVm('stopped', { spec: { stop: { mode: 'Force' }, powerState: 'Stopped' } });
    await all.me.vmIs('paused', 'Ready=True Paused', stepMs);
    await all.me.vmIs('stopped', 'Ready=True Stopped', stepMs);
  }, 300_000);

  const tiny = (name: string, spec: Record<string, unknown> = {}) => vmManifest(name, { memory: { size: '32Mi' }, ...spec });
  const runs = (name: string) => all.me.vmIs(name, 'Ready=True Running', stepMs);
  const power = (name: string, powerState: string) => all.me.patchVm(name, { spec: { powerState } });
  const uidOf = (name: string) => uids.get(name) ?? '';
  const present = async () => {
    const there = new Set((await all.node.qemus()).map(({ uid }) => uid));
    return [...uids].filter(([, uid]) => there.has(uid)).map(([name]) => name).toSorted();
  };
  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();
  const record = (name: string) => join(all.node.paths.ledger, `${uidOf(name)}.json`);
  const holders = async () => {
    const locks = new Set([...uids.values()].map((uid) => all.node.paths.lock(uid)));
    const found: number[] = [];
    for (const pid of (await readdir('/proc')).filter((each) => /^\d+$/.test(each)).map(Number)) if (locks.has(await readlink(`/proc/${pid}/fd/${lockFd}`).catch(() => ''))) found.push(pid);
    return found;
  };
  /** The node loses its power: everything ends in one instant, and what lies in memory is gone. */
  const powerCut = async () => {
    await all.node.end('SIGKILL');
    const pids = await holders();
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await until('all of it to be gone', async () => (await holders()).length === 0, stepMs);
    const cgroups = await openCgroups();
    for (const uid of uids.values()) {
      await rm(all.node.paths.sockets(uid), { recursive: true, force: true });
      await until('the cgroups to be gone', () => cgroups.remove(uid).then(() => true), stepMs);
    }
  };
  /** The next agent sees a boot of its own. */
  const anotherBoot = async () => {
    const file = join(all.cluster.dir, 'boot_id');
    await writeFile(file, `${randomUUID()}\n`);
    options.under = ['unshare', '--mount', '--propagation', 'private', '/bin/sh', '-c', `${withoutBedDisks}; mount --bind ${file} ${bootIdFile} && exec "$@"`, 'sh'];
  };

  test('N04: with the control plane away: what shall run and may be restarted comes back from the ledger, the rest does not', async () => {
    await all.operator.stop();
    await all.cluster.kill();
    await powerCut();
    await anotherBoot();
    await all.node.start();
    await until('the VMs to be back', async () => (await present()).length === 3, stepMs);
    for (const name of ['always', 'failure']) await until(`guest ${name} to be up`, async () => (await all.node.serial(uidOf(name))).includes('up'), stepMs);
    expect(await present()).toEqual(['always', 'failure', 'paused']);

    await all.cluster.start();
    operator = await startBedOperator(all.cluster, { port: Number(new URL(all.operator.url).port) });
    for (const name of ['always', 'failure']) {
      const back = await until(`${name} to be told of`, async () => { const vm = await all.me.vm(name); return vm.status.lastExit !== undefined && verdict(vm) === 'Ready=True Running' && vm; }, stepMs);
      expect([back.metadata.uid, back.status.epoch, back.status.lastExit?.reason]).toEqual([uidOf(name), 1, 'NodeRebooted']);
    }
    const never = await all.me.vmIs('never', 'Ready=False NodeRebooted', stepMs);
    expect([never.status.lastExit?.reason, verdict(never, 'Stalled')]).toEqual(['NodeRebooted', 'Stalled=True NodeRebooted']);
    await all.me.vmIs('paused', 'Ready=True Paused', stepMs);
    await all.me.vmIs('stopped', 'Ready=True Stopped', stepMs);
    expect(await present()).toEqual(['always', 'failure', 'paused']);
  }, 400_000);

  test('with a damaged record: it is put aside and said, its guest runs on untouched, the others do as they are told; with the record back all is well', async () => {
    const before = await pids();
    await all.node.end('SIGKILL');
    const text = await readFile(record('always'), 'utf8');
    await writeFile(record('always'), text.replace('"Running"', '"Stopped"'));
    await all.node.start();
    await all.node.joined();
    const told = await all.me.nodeIs('node-1', 'StorageReady=False LedgerQuarantined', stepMs);
    expect([verdict(told), conditionOf(told.status.conditions, 'StorageReady')?.message]).toEqual(['Ready=False NodeTrouble', expect.stringContaining(`${uidOf('always')}.json is damaged (the checksum differs) and was put into quarantine/`)]);
    await all.me.vmIs('always', 'Ready=Unknown GuestUnknown', stepMs);
    await power('failure', 'Paused');
    await all.me.vmIs('failure', 'Ready=True Paused', stepMs);
    await power('failure', 'Running');
    await runs('failure');
    expect(await pids()).toEqual(before);

    await all.node.end('SIGKILL');
    await rename(join(all.node.paths.quarantine, `${uidOf('always')}.json`), join(all.cluster.dir, 'damaged.json'));
    await writeFile(record('always'), text, { mode: 0o600 });
    await all.node.start();
    await all.node.joined();
    await all.me.nodeIs('node-1', 'StorageReady=True StorageReady', stepMs);
    await runs('always');
    expect(await pids()).toEqual(before);
  }, 400_000);

  test('with nothing of what it was (installed anew): it waits for an administrator, and gives no VM a blank disk for the one it had; a new VM is made', async () => {
    await powerCut();
    const state = dirname(all.node.paths.agentId);
    for (const name of await readdir(state)) await rm(join(state, name), { recursive: true });
    await all.node.start();
    const stranger = await until('the new agent to be refused', async () => /accept-agent=(\S+)/.exec(conditionOf((await all.me.node('node-1')).status.conditions, 'AgentRefused')?.message ?? '')?.[1], stepMs);
    await all.me.annotateNode('node-1', { 'strato.dev/accept-agent': stranger });
    await all.node.joined();
    for (const name of ['always', 'failure', 'paused']) {
      const vm = await all.me.vmIs(name, 'Ready=False DiskMissing', stepMs);
      expect([vm.status.phase, vm.status.disks?.map(({ state }) => state), verdict(vm, 'Stalled')]).toEqual(['Failed', ['Missing'], 'Stalled=True DiskMissing']);
    }
    await all.me.apply(tiny('fresh'));
    const fresh = await runs('fresh');
    expect((await all.node.qemus()).map(({ uid }) => uid)).toEqual([fresh.metadata.uid]);
    // What was stopped is no better off: its start shows it.
    await power('stopped', 'Running');
    await all.me.vmIs('stopped', 'Ready=False DiskMissing', stepMs);
    await all.me.deleteVm('always');
    await all.me.vmGone('always', stepMs);
  }, 400_000);
});
