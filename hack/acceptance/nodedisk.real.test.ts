// The disk of a node is full, read-only, gone or hangs. Guests run on; the agent says what is wrong and keeps no intent that it might lose.
import { createHash } from 'node:crypto';
import { appendFile, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { makeBedDisk } from '../bed/disk.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { type BedOperator, startBedOperator } from '../bed/operator.ts';
import { until } from '../bed/until.ts';
import { bringImage, startWhole } from '../bed/whole.ts';
import { loopImage } from '../guest/loop.ts';

const stepMs = 150_000;
// An import leaves 512 MiB free.
const diskMiB = 800;

describe('the disk of a node', () => {
  let next: BedOperator | undefined;
  afterAll(() => next?.stop(), stepMs);
  const lab = opened(async () => {
    await using made = new AsyncDisposableStack();
    const disk = made.use(await makeBedDisk(diskMiB));
    const all = made.use(await startWhole({ stateDir: join(disk.directory, 'state') }));
    const stack = made.move();
    return { disk, all, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  });
  beforeAll(async () => {
    const { all } = lab;
    await bringImage(all, 'tick', Buffer.from(loopImage('tick')));
    await all.me.apply(tiny('calm'));
    await all.me.apply(vmManifest('ticking', { memory: { size: '32Mi' } }, 'default', 'tick'));
    for (const name of ['calm', 'ticking']) await all.me.vmIs(name, 'Ready=True Running', stepMs);
  }, 3 * stepMs);

  const tiny = (name: string, spec: Record<string, unknown> = {}) => vmManifest(name, { memory: { size: '32Mi' }, ...spec });
  const uidOf = async (name: string) => (await lab.all.me.vm(name)).metadata.uid;
  const pids = async () => (await lab.all.node.qemus()).map(({ pid, uid }) => `${uid} ${pid}`).toSorted();
  /** What QEMU itself says of a guest, by its socket for tools. */
  const guest = async (name: string): Promise<string> => {
    const signal = AbortSignal.timeout(60_000);
    using qmp = await openQmp(`${lab.all.node.paths.sockets(await uidOf(name))}/tools.sock`, signal);
    return (await qmp.execute('query-status', z.object({ status: z.string() }), signal)).status;
  };
  const storageIs = (wanted: string) => lab.all.me.nodeIs('node-1', `StorageReady=${wanted}`, stepMs);
  const restarted = async () => {
    await lab.all.node.end('SIGKILL');
    await lab.all.node.start();
    await lab.all.node.joined();
  };
  const power = (name: string, powerState: string) => lab.all.me.patchVm(name, { spec: { powerState } });
  const leading = () => (next ?? lab.all.operator).leading();

  test('is full: guests run on, nothing new is acknowledged, a delete is; all of it is made up for when there is space', async () => {
    const { all, disk } = lab;
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
    expect(conditionOf(late.status.conditions, 'Ready')?.message).toContain('LedgerFull');
    expect([await guest('calm'), await guest('ticking'), await pids()]).toEqual(['running', 'running', before]);

    await restarted();
    await storageIs('False LedgerFull');
    await all.me.vmIs('ticking', 'Ready=True Running', stepMs);
    await all.me.vmIs('calm', 'Ready=False LedgerFull', stepMs);
    expect([await guest('calm'), await pids()]).toEqual(['running', before]);

    // How a guest ended is known, and why.
    await appendFile(all.node.paths.serialInput(done), 'q');
    const { lastExit } = await until('its end to be told', async () => { const { status } = await all.me.vm('done'); return status.lastExit && status; }, stepMs);
    expect(lastExit).toMatchObject({ reason: 'GuestShutdown', code: 0 });
    const leaving = await uidOf('leaving');
    for (const name of ['done', 'leaving']) await all.me.deleteVm(name);
    for (const name of ['done', 'leaving']) await all.me.vmGone(name, stepMs);
    expect(await all.node.traces(leaving)).toEqual([]);

    await disk.empty();
    await storageIs('True StorageReady');
    // Asked for again at once, not at the next comparison.
    await all.me.vmIs('calm', 'Ready=True Paused', 30_000);
    await all.me.vmIs('late', 'Ready=True Running', stepMs);
    await power('calm', 'Running');
    await all.me.vmIs('calm', 'Ready=True Running', stepMs);
    expect(await pids()).toEqual(expect.arrayContaining(before.filter((each) => !each.startsWith(leaving) && !each.startsWith(done))));
    await all.me.deleteVm('late');
    await all.me.vmGone('late', stepMs);
  }, 8 * stepMs);

  test('is full when VMs go whose disks are to be kept: nothing of them is lost; with the room that the agent has set aside it is done at once, without it is said and done later', async () => {
    const { all, disk } = lab;
    const retained = { disks: [{ name: 'root', image: { name: 'guest' } }, { name: 'data', image: { name: 'guest' }, deletionPolicy: 'Retain' }] };
    const files = new Map<string, [inode: number, digest: string]>();
    const shape = async (file: string): Promise<[number, string]> => [(await stat(file)).ino, createHash('sha256').update(await readFile(file)).digest('hex')];
    const inVm = async (name: string) => join(all.node.paths.disks(await uidOf(name)), 'data.qcow2');
    for (const name of ['first', 'second']) {
      await all.me.apply(tiny(name, retained));
      await all.me.vmIs(name, 'Ready=True Running', stepMs);
      files.set(name, await shape(await inVm(name)));
    }
    const isKept = async (name: string) => {
      await all.me.vmGone(name, stepMs);
      const { status, metadata } = await until(`the disk of ${name} to be kept`, async () => (await all.me.disksOf(name)).find((each) => each.status.state === 'Kept'), stepMs);
      expect(await shape(join(all.node.paths.kept, status.uid ?? '', 'data.qcow2'))).toEqual(files.get(name));
      return metadata.name;
    };
    await disk.fill();
    await storageIs('False LedgerFull');
    await all.me.deleteVm('first');
    const kept = [await isKept('first')];

    await all.node.end('SIGKILL');
    // Somebody has used that up.
    await rm(all.node.paths.ballast, { force: true });
    await disk.fill();
    await all.node.start();
    await all.node.joined();
    await storageIs('False LedgerFull');
    await all.me.deleteVm('second');
    const ends = await all.me.vmIs('second', 'Ready=False LedgerFull', stepMs);
    expect([ends.status.phase, conditionOf(ends.status.conditions, 'Ready')?.message]).toEqual(['Terminating', expect.stringMatching(/^node node-1 has not begun to end the VM: .*no space is left/)]);
    expect(await shape(await inVm('second'))).toEqual(files.get('second'));
    await disk.empty();
    await storageIs('True StorageReady');
    kept.push(await isKept('second'));
    for (const name of kept) await all.me.deleteDisk(name);
  }, 8 * stepMs);

  test('hangs: the node stays connected and says so, a guest that needs no disk runs on, one that does is Unknown; all of it passes', async () => {
    const { all, disk } = lab;
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
  }, 6 * stepMs);

  test('is read-only all of a sudden: guests run on, also with another agent and another leader, and nothing new is acknowledged', async () => {
    const { all, disk } = lab;
    const before = await pids();
    await disk.fail();
    await storageIs('False LedgerReadOnly');
    await power('calm', 'Paused');
    await all.me.vmIs('calm', 'Ready=False LedgerReadOnly', stepMs);
    await restarted();
    await storageIs('False LedgerReadOnly');
    await all.me.vmIs('ticking', 'Ready=True Running', stepMs);
    await all.operator.stop();
    next = await startBedOperator(all.cluster, { port: Number(new URL(all.operator.url).port) });
    await until('the agent to say that it can not keep the new epoch', async () => (await all.node.log()).includes('the epoch of the leader can not be kept'), stepMs);
    await until('the agent to be connected', async () => (await leading()).house.fleet.link('node-1') === 'connected', stepMs);
    await all.me.vmIs('calm', 'Ready=False LedgerReadOnly', stepMs);
    expect([await guest('calm'), await guest('ticking'), await pids()]).toEqual(['running', 'running', before]);
    await mended();
    await power('calm', 'Running');
  }, 10 * stepMs);

  test('is gone: guests run on, and the agent says what it can not do, also why it can not start; with the disk everything is back', async () => {
    const { all, disk } = lab;
    await all.me.vmIs('calm', 'Ready=True Running', stepMs);
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
  }, 8 * stepMs);

  /** The node is taken down, its disk repaired, and started again: what was desired is there. */
  const mended = async () => {
    const { all, disk } = lab;
    const uids = [await uidOf('calm'), await uidOf('ticking')];
    await all.node.end('SIGKILL');
    for (const { pid } of await all.node.qemus()) process.kill(pid, 'SIGKILL');
    await until('the guests to be gone', async () => (await pids()).length === 0, stepMs);
    await disk.repair();
    await all.node.start();
    await all.node.joined();
    await storageIs('True StorageReady');
    const { house } = await leading();
    expect([...house.fleet.member('node-1').view.told.keys()]).toEqual(expect.arrayContaining(uids));
    for (const name of ['calm', 'ticking']) {
      // They do not heed the power button.
      await all.me.patchVm(name, { spec: { powerState: 'Stopped', stop: { mode: 'Force' } } });
      await all.me.vmIs(name, 'Ready=True Stopped', stepMs);
      await power(name, 'Running');
      await all.me.vmIs(name, 'Ready=True Running', stepMs);
    }
  };
});
