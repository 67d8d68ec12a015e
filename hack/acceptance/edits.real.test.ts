// Edits of a VM that runs: what the guest gets at once, and what waits for a restart.
import { beforeAll, describe, expect, test } from '@jest/globals';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

// Says what the guest sees, whenever it differs. As the guest itself, it takes new CPUs on line unless /run/keep-offline is there.
const tells = `#!/bin/sh
( last=
  while :; do
    [ -e /run/keep-offline ] || for c in /sys/devices/system/cpu/cpu[1-9]*/online; do [ -e "$c" ] && [ "$(cat "$c")" = 0 ] && echo 1 > "$c"; done
    now="SEES cpus=$(grep -c ^processor /proc/cpuinfo) nics=$(ls /sys/class/net | grep -cv lo)"
    [ "$now" = "$last" ] || echo "$now" > /dev/ttyS0
    last=$now
    sleep 1
  done ) &
`;

describe('an edit', () => {
  const scene = opened(openScene);
  let uid: string;
  const card = (name: string, hostPort: number) => ({ name, user: { forwards: [{ name: 'web', hostPort, port: 80 }] } });
  beforeAll(async () => {
    uid = await scene.runs(scene.linux('edited', { cpu: { cores: 1, max: 4 }, interfaces: [card('eth0', 28_080)], cloudInit: { userData: tells } }));
    await scene.serialHas(uid, 'SEES cpus=1 nics=1');
  }, 2 * bootMs);

  const pids = async () => (await scene.qemuOf(uid)).map(({ pid }) => pid);
  const applied = (wanted: string) => until(wanted, async () => {
    const vm = await scene.all.me.vm('edited');
    const says = verdict(vm, 'RestartRequired');
    // Told up to date before, it is so again when the node has said that it has the edit.
    const generation = wanted.includes('False') ? vm.status.appliedGeneration : vm.status.observedGeneration;
    return says === wanted && generation === vm.metadata.generation && vm;
  }, bootMs);

  test('L14: cores up to max are seen by the guest without a reboot', async () => {
    const before = await pids();
    await scene.edit('edited', { cpu: { cores: 2 } });
    await scene.serialHas(uid, 'SEES cpus=2');
    const { status, metadata } = await applied('RestartRequired=False UpToDate');
    expect([status.resolved?.cpus, status.appliedGeneration, await pids()]).toEqual([2, metadata.generation, before]);
  }, bootMs);

  test('L14, G09: cores above max wait for a restart; Ready stays True, and reverting clears it', async () => {
    const before = await pids();
    await scene.edit('edited', { cpu: { cores: 8 } });
    const waits = await applied('RestartRequired=True ChangesPending');
    expect([verdict(waits), waits.status.pendingChanges, waits.status.appliedGeneration]).toEqual([
      'Ready=True Running', [{ path: 'cpu.cores', current: '2', desired: '8' }], expect.any(Number),
    ]);
    expect(waits.status.appliedGeneration).toBeLessThan(waits.metadata.generation);
    await scene.edit('edited', { cpu: { cores: 2 } });
    const clear = await applied('RestartRequired=False UpToDate');
    expect([clear.status.pendingChanges, verdict(clear), await pids()]).toEqual([undefined, 'Ready=True Running', before]);
  }, bootMs);

  test('a CPU that the guest leaves off line is said, until the guest takes it on line', async () => {
    const offline = async () => (await scene.all.me.vm('edited')).status.conditions?.find(({ type }) => type === 'CpusOffline');
    await scene.serialHas(uid, 'STRATO script=user-data exit=0');
    await scene.type(uid, '\n: > /run/keep-offline; echo "KE""EPS"\n');
    await scene.serialHas(uid, 'KEEPS');
    expect(await offline()).toBeUndefined();
    await scene.edit('edited', { cpu: { cores: 3 } });
    const told = await until('it to be said', offline, bootMs);
    expect([told.status, told.reason, told.message]).toEqual(['True', 'CpusOffline', 'the guest uses 2 of its 3 CPUs; take the others on line in it']);
    expect((await scene.all.node.serial(uid)).includes('SEES cpus=3')).toBe(false);
    expect(verdict(await scene.all.me.vm('edited'))).toBe('Ready=True Running');
    await scene.type(uid, '\nrm /run/keep-offline\n');
    await scene.serialHas(uid, 'SEES cpus=3');
    await until('it to be said no more', async () => (await offline()) === undefined, bootMs);
  }, 400_000);

  test('a card is plugged and unplugged while the guest runs, and its forwards are moved', async () => {
    const before = await pids();
    await scene.edit('edited', { interfaces: [card('eth0', 28_080), card('lan', 28_081)] });
    await scene.serialHas(uid, 'SEES cpus=3 nics=2');
    const { status } = await applied('RestartRequired=False UpToDate');
    expect(status.interfaces?.map(({ name, forwards }) => [name, forwards.map(({ hostPort }) => hostPort)])).toEqual([['eth0', [28_080]], ['lan', [28_081]]]);
    await scene.edit('edited', { interfaces: [card('eth0', 28_082)] });
    const after = (await scene.all.node.serial(uid)).length;
    await scene.serialHas(uid, 'SEES cpus=3 nics=1', after > 0 ? (await scene.all.node.serial(uid)).lastIndexOf('nics=2') : 0);
    await until('the new forward to be told', async () => (await scene.all.me.vm('edited')).status.interfaces?.[0]?.forwards[0]?.hostPort === 28_082, stepMs);
    await applied('RestartRequired=False UpToDate');
    expect(await pids()).toEqual(before);
  }, 300_000);

  test("what waits is there after the guest's own reboot", async () => {
    await scene.edit('edited', { cpu: { cores: 2, max: 2 } });
    await applied('RestartRequired=True ChangesPending');
    const before = await pids();
    await scene.type(uid, '\nreboot -f\n');
    await until('another machine', async () => (await pids()).length === 1 && (await pids())[0] !== before[0], bootMs);
    const { status } = await applied('RestartRequired=False UpToDate');
    expect([status.lastExit?.reason, status.resolved?.cpus, status.restartCount]).toEqual(['GuestReset', 2, undefined]);
    await scene.serialHas(uid, 'STRATO ready');
    // Its script ran at the first boot only.
    await scene.type(uid, '\necho "HAS cpus=$(grep -c ^processor /proc/cpuinfo)"\n');
    await scene.serialHas(uid, 'HAS cpus=2');
    expect(await scene.removed('edited', uid)).toEqual([]);
  }, 400_000);
});
