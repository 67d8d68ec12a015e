// What only a real QEMU and a real shell can show: the lock, the record of the end, the console that never waits, the probe.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { appendFile, mkdtemp, open, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import { plainDisk, plainHardware } from '../driver.ts';
import { openQemuBed, type QemuBed } from './bed.ts';
import { runBound, serialBound } from './bound.ts';
import { lockIsFree } from './lock.ts';
import { findProgram, proveQemu, whyEmulated } from './probe.ts';

const waitMs = 120_000;
const signal = () => AbortSignal.timeout(waitMs);

describe('a machine under its launcher', () => {
  let bed: QemuBed;
  let uid: string;
  beforeEach(async () => {
    bed = await openQemuBed();
    uid = randomUUID();
  });
  afterEach(() => bed.close());

  const start = async () => {
    const spec = await bed.spec(uid);
    await bed.hypervisor.start(spec, signal());
    const sight = await bed.hypervisor.observe(uid, signal());
    if (sight.is !== 'present') throw new Error(`the machine is ${sight.is}`);
    return { ...spec, pid: sight.pid };
  };
  const status = async (pid: number, key: string) => new RegExp(`^${key}:[ \\t]*(.*)$`, 'm').exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1];
  const supervisorOf = async (pid: number) => Number(await status(pid, 'PPid'));

  test('QEMU is its own user without any right, in its own cgroups, and goes before the agent when memory is short', async () => {
    const { pid, unixId } = await start();
    expect(await status(pid, 'Uid')).toBe([unixId, unixId, unixId, unixId].join('\t'));
    expect(await status(pid, 'Groups')).toBe('');
    expect([await status(pid, 'CapEff'), await status(pid, 'CapBnd'), await status(pid, 'NoNewPrivs')]).toEqual(['0000000000000000', '0000000000000000', '1']);
    const groups = (await readFile(`/proc/${pid}/cgroup`, 'utf8')).trim().split('\n');
    expect(groups.filter((each) => each.endsWith(`/strato/${uid}`)).length).toBeGreaterThan(0);
    expect((await readFile(`/proc/${pid}/oom_score_adj`, 'utf8')).trim()).toBe('500');
  });

  test('it has no descriptor of the agent: null, its records, its lock, its disks', async () => {
    const { pid } = await start();
    const targets = await Promise.all((await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')));
    const own = bed.paths.vm(uid);
    expect(targets.filter((each) => each.startsWith('/') && !each.startsWith(own) && !each.startsWith('/dev/') && !each.startsWith('/memfd:'))).toEqual([]);
  });

  test('the lock is held while QEMU lives, even when its supervisor is killed', async () => {
    const { pid } = await start();
    process.kill(await supervisorOf(pid), 'SIGKILL');
    expect(await lockIsFree(bed.paths.lock(uid), 200, signal())).toBe(false);
    await bed.hypervisor.resume(uid, signal());
    await bed.powerOff(uid);
    await until('the lock to be free', () => lockIsFree(bed.paths.lock(uid), 0, signal()), waitMs);
    // Nobody wrote the exit code; QEMU's own record tells.
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ is: 'gone', last: { cause: 'guest', ran: true } });
  });

  test.each([['run', ''], ['run', '../../x'], ['start.json', '{']])('a record of the run that was torn (%s: %j) does not keep a machine that is gone from starting again', async (file, content) => {
    const { startId } = await start();
    await bed.hypervisor.kill(uid, signal());
    await writeFile(file === 'run' ? bed.paths.runPointer(uid) : join(bed.paths.run(uid, startId), file), content);
    expect(await bed.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
    await bed.hypervisor.start({ ...(await respec(uid)), startId: randomUUID() }, signal());
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present' });
  });

  test('whoever has the lock has the disks, though nobody answers: nothing is gone, started or removed', async () => {
    const spec = await bed.spec(uid);
    // The end of its input ends it.
    const holder = spawn('flock', [bed.paths.lock(uid), 'cat'], { stdio: ['pipe', 'ignore', 'ignore'] });
    await until('the lock to be held', async () => existsSync(bed.paths.lock(uid)) && !(await lockIsFree(bed.paths.lock(uid), 0, signal())), waitMs);
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ is: 'unknown' });
    await expect(bed.hypervisor.start(spec, signal())).rejects.toMatchObject({ code: 'AlreadyRunning' });
    await expect(bed.hypervisor.forget(uid, signal())).rejects.toMatchObject({ code: 'StillThere' });
    holder.stdin.end();
    await once(holder, 'exit', { signal: signal() });
    expect(await bed.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
  });

  test('signals to the supervisor do not end the machine', async () => {
    const { pid } = await start();
    const supervisor = await supervisorOf(pid);
    for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(supervisor, name);
    await bed.hypervisor.resume(uid, signal());
    await bed.powerOff(uid);
    await until('its end', async () => (await bed.hypervisor.observe(uid, signal())).is === 'gone', waitMs);
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ last: { cause: 'guest', code: 0 } });
  });

  test('nobody reads the console, or somebody who stopped: the guest goes on; a new start begins a new record', async () => {
    await start();
    const reader = await open(bed.paths.serialLog(uid), 'r');
    try {
      await bed.hypervisor.resume(uid, signal());
      await bed.powerOff(uid);
      await until('its end', async () => (await bed.hypervisor.observe(uid, signal())).is === 'gone', waitMs);
    } finally {
      await reader.close();
    }
    await writeFile(bed.paths.serialLog(uid), 'old\n', { flag: 'a' });
    const spec = { ...(await respec(uid)), startId: randomUUID() };
    await bed.hypervisor.start(spec, signal());
    await bed.hypervisor.resume(uid, signal());
    await until('the guest is up', async () => (await bed.serial(uid)).includes('up'), waitMs);
    expect(await bed.serial(uid)).not.toContain('old');
  });

  test('what is said without end is cut short under a QEMU that goes on: its console, its events, its stderr; its end is told all the same', async () => {
    const { startId } = await start();
    await bed.hypervisor.resume(uid, signal());
    await until('the guest is up', async () => (await bed.serial(uid)).includes('up'), waitMs);
    const run = bed.paths.run(uid, startId);
    const files = [[bed.paths.serialLog(uid), serialBound], [join(run, 'events'), runBound], [join(run, 'stderr'), runBound]] as const;
    for (const [file] of files) await appendFile(file, `${'x'.repeat(1023)}\n`.repeat(6 * 1024));
    for (const [file, { most }] of files) await until(`a short ${file}`, async () => (await stat(file)).size <= most, waitMs);
    await appendFile(bed.paths.serialInput(uid), 'q');
    await until('its end', async () => (await bed.hypervisor.observe(uid, signal())).is === 'gone', waitMs);
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ last: { startId, cause: 'guest', code: 0, ran: true } });
  });

  test('before the guest runs nobody but root can put another socket in the place of its monitors', async () => {
    const { unixId } = await start();
    const folder = await stat(bed.paths.sockets(uid));
    expect([folder.uid, folder.mode & 0o777, unixId > 0]).toEqual([0, 0o700, true]);
  });

  const respec = async (of: string) => ({
    ...plainHardware, uid: of, startId: '', epoch: 1, uuid: of, cpus: 1, maxCpus: 1, memoryMiB: 32, maxMemoryMiB: 32, unixId: 240_000, nics: [],
    disks: [{ ...plainDisk, name: 'root', file: 'disks/root.raw', format: 'raw' as const, readOnly: false, slot: 0, bootIndex: 0 }],
  });
});

describe('the probe', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-prove-'));
  });
  afterEach(() => rm(folder, { recursive: true }));
  const prove = async (over: Partial<Parameters<typeof proveQemu>[0]> = {}) =>
    proveQemu({ programs: { amd64: await findProgram('qemu-system-x86_64', process.env.PATH ?? '') }, host: 'amd64', bootId: 'b', wanted: null, verdictFile: join(folder, 'verdict.json'), ...over }, signal());

  test('tells the version, the versioned machine and what runs guests, and keeps it for the boot and the binary', async () => {
    const verdict = await prove();
    expect(verdict).toEqual({
      version: expect.stringMatching(/^\d+\.\d+\.\d+$/), host: 'amd64', wanted: null,
      boards: { amd64: { program: expect.stringContaining('qemu-system-x86_64'), type: expect.stringMatching(/^pc-q35-\d/), accelerators: ['tcg'], cpuModels: expect.arrayContaining(['max', 'qemu64']) } },
    });
    expect(verdict.boards.amd64?.cpuModels).not.toContain('host');
    const kept = join(folder, 'verdict.json');
    await writeFile(kept, (await readFile(kept, 'utf8')).replace(verdict.boards.amd64?.type ?? '', 'pc-q35-0.1'));
    expect(await prove()).toMatchObject({ boards: { amd64: { type: 'pc-q35-0.1' } } });
    expect(await prove({ bootId: 'another' })).toEqual(verdict);
  });

  test('a device file of KVM is no proof: what does not run a guest is not told, and TCG always is', async () => {
    const { boards } = await prove({ wanted: 'kvm' });
    expect(boards.amd64?.accelerators.at(-1)).toBe('tcg');
  });

  test('a foreign architecture is run by software emulation, and it is said why', async () => {
    const programs = { amd64: await findProgram('qemu-system-x86_64', process.env.PATH ?? ''), arm64: await findProgram('qemu-system-aarch64', process.env.PATH ?? '') };
    const verdict = await prove({ programs });
    expect(verdict.boards.arm64).toMatchObject({ type: expect.stringMatching(/^virt-\d/), accelerators: ['tcg'], cpuModels: expect.arrayContaining(['cortex-a57', 'max']) });
    expect([whyEmulated(verdict, 'arm64'), whyEmulated(verdict, 'amd64')]).toEqual(['the guest is arm64 and the node is amd64', 'enable_kvm is false in the configuration of the agent']);
  });

  test('a QEMU that is none is unusable, and one that is not there is missing', async () => {
    await expect(prove({ programs: { amd64: '/bin/true' } })).rejects.toMatchObject({ code: 'QemuUnusable' });
    await expect(findProgram('qemu-system-nothing', process.env.PATH ?? '')).rejects.toMatchObject({ code: 'QemuMissing', retry: 'never' });
  });

  test('a verdict file that somebody wrote is not believed', async () => {
    await writeFile(join(folder, 'verdict.json'), '{"version": 1, "verdict": "yes"}');
    expect(await prove()).toMatchObject({ boards: { amd64: { accelerators: ['tcg'] } } });
  });
});
