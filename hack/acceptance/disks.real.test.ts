// The disk of a node is full, read-only, gone or hangs. Guests run on; the agent says what is wrong and keeps no intent that it might lose.
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { type BedDisk, makeBedDisk } from '../bed/disk.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { type BedOperator, startBedOperator } from '../bed/operator.ts';
import { until } from '../bed/until.ts';
import { startWhole, type Whole } from '../bed/whole.ts';
import { loopImage } from '../guest/loop.ts';

const stepMs = 90_000;
// An import leaves 512 MiB free.
const diskMiB = 800;

describe('the disk of a node', () => {
  let disk: BedDisk;
  let all: Whole;
  let operator: BedOperator;
  beforeAll(async () => {
    disk = await makeBedDisk(diskMiB);
    all = await startWhole({ stateDir: join(disk.directory, 'state') });
    operator = all.operator;
    const url = all.web.serve('/tick.raw', { is: 'bytes', bytes: Buffer.from(loopImage('tick')) });
    await all.me.apply({ apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'tick', namespace: 'default' }, spec: { source: { http: { url } }, format: 'raw' } });
    await all.me.imageIs('tick', 'Ready=True Ready', stepMs);
    await all.me.apply(tiny('calm'));
    await all.me.apply(vmManifest('ticking', { memory: { size: '32Mi' } }, 'default', 'tick'));
    for (const name of ['calm', 'ticking']) await all.me.vmIs(name, 'Ready=True Running', stepMs);
  }, 300_000);
  afterAll(async () => {
    await disk?.freeze(false).catch(() => {});
    await operator?.stop();
    await all?.[Symbol.asyncDispose]();
    await disk?.[Symbol.asyncDispose]();
  }, stepMs);

  const tiny = (name: string, spec: Record<string, unknown> = {}) => vmManifest(name, { memory: { size: '32Mi' }, ...spec });
  const uidOf = async (name: string) => (await all.me.vm(name)).metadata.uid;
  const pids = async () => (await all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();
  /** What QEMU itself says of a guest, by its socket for tools. */
  const guest = async (name: string): Promise<string> => {
    const signal = AbortSignal.timeout(5_000);
    using qmp = await openQmp(`${all.node.paths.sockets(await uidOf(name))}/tools.sock`, signal);
    return (await qmp.execute('query-status', z.object({ status: z.string() }), signal)).status;
  };
  const storageIs = async (wanted: string) => all.me.nodeIs('node-1', `StorageReady=${wanted}`, stepMs);
  const restarted = async () => {
    await all.node.end('SIGKILL');
    await all.node.start();
    await all.node.joined();
  };
  const power = (name: string, powerState: string) => all.me.patchVm(name, { spec: { powerState } });

  test('is full: guests run on, nothing new is acknowledged, a delete is; all of it is made up for when there is space', async () => {
    for (const name of ['leaving', 'done']) await all.me.apply(tiny(name));
    for (const name of ['leaving', 'done']) await all.me.vmIs(name, 'Ready=True Running', stepMs);
    const done = await uidOf('done');
    await until('the guest to listen', async () => (await all.node.serial(done)).includes('up'), stepMs);
    const before = await pids();
    await disk.fill();
    const told = await storageIs('False LedgerFull');
    expect(verdict(told)).toBe('Ready=False NodeTrouble');
    await power('calm', 'Paused');
    await all.me.vmIs('calm', 'Ready=False LedgerFull', stepMs);
    await all.me.apply(tiny('late'));
    const late = await all.me.vmIs('late', 'Ready=False NoNodeFits', stepMs);
    expect(late.status.conditions?.find(({ type }) => type === 'Ready')?.message).toContain('LedgerFull');
    expect([await guest('calm'), await guest('ticking'), await pids()]).toEqual(['running', 'running', before]);

    await restarted();
    await storageIs('False LedgerFull');
    await all.me.vmIs('ticking', 'Ready=True Running', stepMs);
    await all.me.vmIs('calm', 'Ready=False LedgerFull', stepMs);
    expect([await guest('calm'), await pids()]).toEqual(['running', before]);

    // How a guest ended is known, and why.
    await appendFile(all.node.paths.serialInput(done), 'q');
    const { lastExit } = await until('its end to be told', async () => { const { status } = await all.me.vm('done'); return status.lastExit && status; }, 10_000);
    expect(lastExit).toMatchObject({ reason: 'GuestShutdown', code: 0 });
    await all.me.deleteVm('done');
    const leaving = await uidOf('leaving');
    await all.me.deleteVm('leaving');
    await all.me.vmGone('leaving', stepMs);
    expect(await all.node.traces(leaving)).toEqual([]);

    await disk.empty();
    await storageIs('True StorageReady');
    // Asked for again at once, not at the next comparison.
    await all.me.vmIs('calm', 'Ready=True Paused', 20_000);
    await all.me.vmIs('late', 'Ready=True Running', stepMs);
    await power('calm', 'Running');
    await all.me.vmIs('calm', 'Ready=True Running', stepMs);
    expect(await pids()).toEqual(expect.arrayContaining(before.filter((each) => !each.startsWith(leaving) && !each.startsWith(done))));
    await all.me.deleteVm('late');
    await all.me.vmGone('late', stepMs);
  }, 400_000);

  test('hangs: the node stays connected and says so, a guest that needs no disk runs on, one that does is Unknown; all of it passes', async () => {
    const before = await pids();
    await disk.freeze(true);
    try {
      await storageIs('False StorageHung');
      await all.me.vmIs('ticking', 'Ready=Unknown GuestUnknown', stepMs);
      const since = performance.now();
      await until('more than the silence that would be told of', () => performance.now() - since > 40_000, stepMs);
      const node = await all.me.node('node-1');
      expect([verdict(node, 'AgentConnected'), verdict(await all.me.vm('calm')), await guest('calm')]).toEqual(['AgentConnected=True Connected', 'Ready=True Running', 'running']);
    } finally {
      await disk.freeze(false);
    }
    await storageIs('True StorageReady');
    await all.me.vmIs('ticking', 'Ready=True Running', stepMs);
    const size = (await all.node.serial(await uidOf('ticking'))).length;
    await until('the guest to go on', async () => (await all.node.serial(await uidOf('ticking'))).length > size, stepMs);
    expect(await pids()).toEqual(before);
  }, 400_000);

  test('is read-only all of a sudden: guests run on, also with another agent and another leader, and nothing new is acknowledged', async () => {
    const before = await pids();
    await disk.fail();
    await storageIs('False LedgerReadOnly');
    await power('calm', 'Paused');
    await all.me.vmIs('calm', 'Ready=False LedgerReadOnly', stepMs);
    await restarted();
    await storageIs('False LedgerReadOnly');
    await all.me.vmIs('ticking', 'Ready=True Running', stepMs);
    await operator.stop();
    operator = await startBedOperator(all.cluster, { port: Number(new URL(all.operator.url).port) });
    await until('the agent to say that it can not keep the new epoch', async () => (await all.node.log()).includes('the epoch of the leader can not be kept'), stepMs);
    await until('the agent to be connected', async () => (await operator.leading()).house.fleet.link('node-1') === 'connected', stepMs);
    await all.me.vmIs('calm', 'Ready=False LedgerReadOnly', stepMs);
    expect([await guest('calm'), await guest('ticking'), await pids()]).toEqual(['running', 'running', before]);
    await mended();
    await power('calm', 'Running');
  }, 400_000);

  test('is gone: guests run on, and the agent says what it can not do, also why it can not start; with the disk everything is back', async () => {
    const before = await pids();
    await disk.pull();
    await storageIs('False LedgerFailed');
    expect([await guest('calm'), await pids()]).toEqual(['running', before]);
    await all.node.end('SIGKILL');
    const agent = await all.node.start();
    await until('the agent to give up', () => agent.exitCode !== null, stepMs);
    expect([agent.exitCode, await guest('calm'), await pids()]).toEqual([1, 'running', before]);
    expect(await all.node.log()).toMatch(/strato-agent: .*(can not be locked|can not be listed).*/);
    await mended();
  }, 400_000);

  /** The node is taken down, its disk repaired, and started again: what was desired is there. */
  const mended = async () => {
    const uids = [await uidOf('calm'), await uidOf('ticking')];
    await all.node.end('SIGKILL');
    for (const { pid } of await all.node.qemus()) process.kill(pid, 'SIGKILL');
    await until('the guests to be gone', async () => (await pids()).length === 0, stepMs);
    await disk.repair();
    await all.node.start();
    await all.node.joined();
    await storageIs('True StorageReady');
    const term = await operator.leading();
    expect([...term.house.fleet.member('node-1').view.told.keys()]).toEqual(expect.arrayContaining(uids));
    for (const name of ['calm', 'ticking']) {
      await power(name, 'Stopped');
      await all.me.vmIs(name, 'Ready=True Stopped', stepMs);
      await power(name, 'Running');
      await all.me.vmIs(name, 'Ready=True Running', stepMs);
    }
  };
});
