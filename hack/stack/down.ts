// Ends exactly what hack/up started: the processes that it recorded, and the guests of its agent. `--purge` removes the data too.
import { readFile, rm, rmdir } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { until } from '../bed/until.ts';
import { takeLock } from '../cache/lock.ts';
import { endProcess } from './end.ts';
import { endGuest } from './endguest.ts';
import { cgroupFolders, observeHolders } from './guests.ts';
import { type Layout, layout, type ProcessName, processNames } from './layout.ts';
import { readLive, removeRecord } from './record.ts';
import { openReport, type Report } from './report.ts';

const graceMs = 15_000;

/** Ends one process of the stack; true when it had been alive. */
const endOne = async (at: Layout, name: ProcessName): Promise<boolean> => {
  const live = await readLive(at.run, name);
  if (live !== undefined) await endProcess(live, graceMs);
  await removeRecord(at.run, name);
  return live !== undefined;
};

const endNamed = async (at: Layout, report: Report, names: readonly ProcessName[]): Promise<void> => {
  await Promise.all(names.map(async (name) => {
    if ((await readLive(at.run, name)) === undefined) return removeRecord(at.run, name);
    await report.step(name, () => endOne(at, name), () => 'ended');
    return undefined;
  }));
};

const endGuests = async (at: Layout, report: Report): Promise<void> => {
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8');
  const ended = await Promise.allSettled([...(await observeHolders(at.agent.vms))].map(async ([uid, holders]) => {
    const folders = new Set(holders.flatMap(({ cgroups }) => cgroupFolders(cgroups, mountinfo, uid)));
    await report.step(`guest ${uid.slice(0, 8)}`, () => endGuest(at, uid), (how) => how);
    for (const folder of folders) {
      // EBUSY for a moment after the last process has gone.
      await until(`${folder} to be free`, async () => !existsSync(folder) || rmdir(folder).then(() => true), 2_000).catch(() => undefined);
      await rmdir(dirname(folder)).catch(() => undefined);
    }
  }));
  const failed = ended.find((each) => each.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
};

const main = async (): Promise<void> => {
  // hack/down has refused anything else.
  const purge = process.argv.includes('--purge');
  const at = layout(join(import.meta.dirname, '..', '..'), process.env);
  using report = openReport();
  {
    await using _lock = await takeLock(at.lock, { onWait: () => report.say('another ./hack/up or ./hack/down is at work; waiting for it') });
    // The agent first, so that it starts nothing anew; the servers in the reverse order of their needs.
    await endNamed(at, report, ['agent-node-1']);
    await Promise.all([endGuests(at, report), endNamed(at, report, ['operator', 'token-renewer', 'image-server', 'kube-controller-manager'])]);
    await endNamed(at, report, ['kube-apiserver']);
    await endNamed(at, report, ['etcd']);
    await rm(at.agent.sockets, { recursive: true, force: true });
    const left = (await Promise.all(processNames.map((name) => readLive(at.run, name)))).filter((each) => each !== undefined);
    if (left.length > 0) throw new Fault('Left', `still alive: ${left.map(({ pid }) => pid).join(' ')}`);
    if (purge) await report.step('.strato', () => rm(at.home, { recursive: true, force: true }), () => 'removed');
  }
  report.say(purge ? 'All ended, all data removed.' : 'All ended. The data stays in .strato; ./hack/up goes on with it.');
};

try {
  await main();
} catch (thrown) {
  console.error(`\n${messageOf(thrown)}`);
  process.exitCode = 1;
}
