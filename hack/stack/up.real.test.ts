// The two commands, on a stack of their own: another folder, other ports. The tests are the chapters of one life, in their order.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '../bed/until.ts';
import { runChild } from '../cache/child.ts';
import { signalIfSame } from './end.ts';
import { sshPorts } from './example.ts';
import { cgroupFolders, observeHolders } from './guests.ts';
import { observeProcess, type ProcessIdentity } from './identity.ts';
import { kubectl } from './kubectl.ts';
import { type Layout, layout, type ProcessName, processNames } from './layout.ts';
import { readLive } from './record.ts';
import { freePortBase, type ScriptResult, startScript } from './scripts.ts';

const scriptMs = 300_000;
let dir = '';
let env: { STRATO_HOME: string; STRATO_PORT_BASE: string };
let at: Layout;
let bystander: ChildProcess;
let goodbye = '';
let cgroups: string[] = [];

const script = (name: 'up' | 'down', ...args: string[]): Promise<ScriptResult> => startScript(name, args, env, scriptMs).ended;
const live = async (): Promise<Record<string, string>> =>
  Object.fromEntries(await Promise.all(processNames.map(async (name) => {
    const found = await readLive(at.run, name);
    return [name, found === undefined ? 'gone' : `${found.pid} ${found.startTicks}`] as const;
  })));
const guests = async (): Promise<ProcessIdentity[]> =>
  [...(await observeHolders(at.agent.vms)).values()].flat().map(({ pid, startTicks, bootId }) => ({ pid, startTicks, bootId })).toSorted((a, b) => a.pid - b.pid);
const kill = async (name: ProcessName, group = false): Promise<void> => {
  const found = await readLive(at.run, name);
  if (found === undefined) throw new Error(`${name} does not run`);
  if (group) process.kill(-found.pid, 'SIGKILL');
  else await signalIfSame(found, 'SIGKILL');
  await until(`${name} to be gone`, async () => (await observeProcess(found.pid)) === undefined, 60_000);
};

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'strato-up-'));
  env = { STRATO_HOME: join(dir, '.strato'), STRATO_PORT_BASE: String(await freePortBase(10)) };
  at = layout(join(import.meta.dirname, '..', '..'), env);
  bystander = spawn('sleep', ['600'], { stdio: 'ignore' });
  await once(bystander, 'spawn');
});

afterAll(async () => {
  bystander.kill('SIGKILL');
  if (existsSync(at.home)) await script('down', '--purge');
  await rm(dir, { recursive: true, force: true });
}, scriptMs);

test('./hack/up makes everything, and the guest of the first VM says that it is up', async () => {
  const { code, said } = await script('up');
  goodbye = said;
  expect(said).toMatch(/✓ first-vm .*STRATO ready host=first-vm/);
  expect(code).toBe(0);
  for (const name of processNames) expect(said).toMatch(new RegExp(`✓ ${name} +\\d+\\.\\d s   started`));
  expect(Object.values(await live())).not.toContain('gone');
  expect(await readFile(join(at.run, 'etcd.pid'), 'utf8')).toMatch(/^\d+\n$/);
  const ready = await kubectl(at, ['get', 'vm', 'first-vm', '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'], AbortSignal.timeout(60_000));
  expect(ready).toBe('True');
  const audit = await readFile(join(at.logs, 'audit.log'), 'utf8');
  expect(audit).toContain('"level":"Metadata"');
  expect(audit).not.toContain('"requestObject"');
}, scriptMs);

test('the five commands that it ends with do what they say; the last one logs in to a guest, by a key and a forwarded port', async () => {
  const commands = (/Try next:\n((?: {2}.*\n)+)/.exec(goodbye)?.[1] ?? '').trimEnd().split('\n').map((line) => line.replace(/ +# .*$/, '').trim());
  const environment = /^ {2}(export KUBECONFIG=.*)$/m.exec(goodbye)?.[1] ?? '';
  expect(commands).toHaveLength(5);
  const run = (command: string) => runChild('bash', ['-euc', `${environment}\n${command}`], { cwd: at.root, env: { PATH: process.env.PATH, HOME: dir }, timeoutMs: 150_000 });
  const [get = '', tail = '', stop = '', own = '', login = ''] = commands;
  expect(await run(get)).toMatch(/first-vm +Running +True +node-1 /);
  expect(await run(`timeout 5 ${tail} || true`)).toContain('STRATO ready host=first-vm');
  await run(stop);
  await run('kubectl wait --for=jsonpath={.status.phase}=Stopped vm/first-vm --timeout=100s');
  expect(await run(own)).toContain('ssh-vm condition met');
  expect(await until('the SSH server of the guest', () => run(`${login} hostname`), 120_000)).toBe('ssh-vm\n');
  const forwards: unknown = JSON.parse(await run('kubectl get vm ssh-vm -o jsonpath={.status.interfaces}'));
  expect(forwards).toMatchObject([{ name: 'net0', forwards: [{ name: 'ssh', address: '127.0.0.1', hostPort: sshPorts(at.ports).own, port: 22, protocol: 'TCP' }] }]);
  await run('kubectl delete vm ssh-vm --timeout=60s');
}, 3 * scriptMs);

test('after a stop and a start nothing differs from the file that was applied', async () => {
  const limit = () => AbortSignal.timeout(120_000);
  for (const [powerState, ready] of [['Stopped', 'Stopped'], ['Running', 'Running']] as const) {
    await kubectl(at, ['patch', 'vm', 'first-vm', '--type=merge', '-p', JSON.stringify({ spec: { powerState } })], limit());
    await kubectl(at, ['wait', `--for=jsonpath={.status.phase}=${ready}`, 'vm/first-vm', '--timeout=100s'], limit());
  }
  // What was applied: the example with the ports of this stack.
  const applied = await kubectl(at, ['get', 'vm', 'first-vm', '-o', 'jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}'], limit());
  await writeFile(join(dir, 'vm.json'), applied);
  expect(await kubectl(at, ['diff', '-f', join(dir, 'vm.json')], limit())).toBe('');
}, scriptMs);

test('`kubectl wait` for Ready, begun before there is an image, ends when the guest runs', async () => {
  const limit = AbortSignal.timeout(scriptMs);
  const url = (await kubectl(at, ['get', 'vmimage', 'guest', '-o', 'jsonpath={.spec.source.http.url}'], limit)).trim();
  const apply = async (object: object) => {
    await writeFile(join(dir, 'object.json'), JSON.stringify({ apiVersion: 'strato.dev/v1alpha1', ...object }));
    await kubectl(at, ['apply', '-f', join(dir, 'object.json')], limit);
  };
  await apply({ kind: 'VirtualMachine', metadata: { name: 'early' }, spec: { cpu: { cores: 1 }, memory: { size: '128Mi' }, disks: [{ name: 'root', image: { name: 'late' } }] } });
  const waiting = kubectl(at, ['wait', '--for=condition=Ready', 'vm/early', '--timeout=200s'], limit);
  await kubectl(at, ['wait', '--for=jsonpath={.status.phase}=Pending', 'vm/early', '--timeout=100s'], limit);
  const before = (await guests()).length;
  await apply({ kind: 'VirtualMachineImage', metadata: { name: 'late' }, spec: { source: { http: { url } }, format: 'qcow2' } });
  await waiting;
  expect((await guests()).length).toBeGreaterThan(before);
  await kubectl(at, ['delete', 'vm/early', 'vmimage/late', '--timeout=60s'], limit);
}, scriptMs);

test('a second ./hack/up restarts nothing', async () => {
  const before = [await live(), await guests()];
  const { code, said } = await script('up');
  expect(said).toMatch(/✓ first-vm .*was running/);
  expect(code).toBe(0);
  expect([await live(), await guests()]).toEqual(before);
}, scriptMs);

test('what was killed is started anew, the rest and the guest are left alone', async () => {
  const before = await live();
  const guest = await guests();
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8');
  cgroups = [...(await observeHolders(at.agent.vms))].flatMap(([uid, holders]) => holders.flatMap((each) => cgroupFolders(each.cgroups, mountinfo, uid)));
  expect(guest.length).toBeGreaterThan(0);
  // The agent with all of its process group: a guest is in neither.
  await Promise.all([kill('image-server'), kill('agent-node-1', true)]);
  expect((await script('up')).code).toBe(0);
  const after = await live();
  const changed = Object.keys(after).filter((name) => after[name] !== before[name]);
  expect(changed.toSorted()).toEqual(['agent-node-1', 'image-server']);
  expect(Object.values(after)).not.toContain('gone');
  expect(await guests()).toEqual(guest);
}, scriptMs);

test('a process that got the id of one of ours is nothing of ours', async () => {
  await kill('token-renewer');
  // As after a reboot: the record is that of a process that is gone, and its id is somebody else's.
  await writeFile(join(at.run, 'token-renewer.pid'), `${bystander.pid}\n`);
  expect((await script('up', '--no-vm')).code).toBe(0);
  expect(await live()).not.toMatchObject({ 'token-renewer': 'gone' });
  await kill('image-server');
  await writeFile(join(at.run, 'image-server.pid'), `${bystander.pid}\n`);
  expect((await script('down')).code).toBe(0);
  expect(bystander.exitCode ?? bystander.signalCode).toBeNull();
}, scriptMs);

test('after ./hack/down there is no process, no guest, no socket and no cgroup of the stack', async () => {
  expect(new Set(Object.values(await live()))).toEqual(new Set(['gone']));
  expect(await guests()).toEqual([]);
  expect(existsSync(at.agent.sockets)).toBe(false);
  for (const folder of cgroups) expect(existsSync(folder)).toBe(false);
  expect(cgroups.length).toBeGreaterThan(0);
  expect(existsSync(at.etcd)).toBe(true);
  const again = await script('down');
  expect(again).toMatchObject({ code: 0 });
}, scriptMs);

test('Ctrl-C in the middle leaves what the next ./hack/up goes on with; the guest is started again', async () => {
  const cut = startScript('up', [], env, scriptMs);
  await until('the API server', () => /✓ kube-apiserver/.test(cut.said()), scriptMs);
  cut.interrupt();
  expect(await cut.ended).toMatchObject({ code: 130, said: expect.stringContaining('goes on from here') });
  const { code, said } = await script('up');
  expect(said).toMatch(/✓ kube-apiserver .*running/);
  expect(said).toMatch(/✓ first-vm .*started/);
  expect(code).toBe(0);
}, scriptMs);

test('./hack/down --purge ends all and removes all', async () => {
  const pids = [...Object.values(await live()).map((each) => Number(each.split(' ')[0])), ...(await guests()).map(({ pid }) => pid)];
  expect(pids.filter(Number.isNaN)).toEqual([]);
  expect((await script('down', '--purge')).code).toBe(0);
  expect(existsSync(at.home)).toBe(false);
  expect((await Promise.all(pids.map(observeProcess))).filter((each) => each !== undefined)).toEqual([]);
}, scriptMs);
