// Makes the stack run and boots the first VM: starts what is missing or was changed, leaves the rest alone. See up.help.
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '#crds/kit/fault.ts';
import { loadConfig } from '#operator/kube/auth.ts';
import { type Client, connectKube } from '#operator/kube/client.ts';
import { runChild } from '../cache/child.ts';
import { takeLock } from '../cache/lock.ts';
import { ensureServers, type Servers } from '../servers/build.ts';
import { sshVm } from './example.ts';
import { farewell } from './farewell.ts';
import { ensureArm64Guest, type EnsureGuest, ensureGuest } from '../guest/guest.ts';
import { observeHolders } from './guests.ts';
import { ensureGuestImage } from './guestimage.ts';
import { ensureKeys, pairOf } from './keys.ts';
import { installKubectl, kubectl } from './kubectl.ts';
import { writeKubeconfig } from './kubeconfig.ts';
import { type Layout, layout, processNames, systemNamespace } from './layout.ts';
import { agentService, imageServerService, operatorService, readNodeUid, tokenRenewerService } from './processes.ts';
import { readLive } from './record.ts';
import { openReport, type Report, showDuration, tellProgress } from './report.ts';
import { apiserverService, apiserverUrl, controllerManagerService, etcdService, wantedKeys } from './servers.ts';
import { ensureService, type Service } from './service.ts';
import { bootFirstVm } from './vm.ts';

type Run = { at: Layout; report: Report; signal: AbortSignal };

/** What a user asked for beside the stack itself. */
type Wishes = { vm: boolean; arm64: boolean };

const ensure = ({ at, report, signal }: Run, service: Service) => report.step(service.name, () => ensureService(at, service, signal), (how) => how);

const prepareKeys = async ({ at, signal }: Run): Promise<string> => {
  await ensureKeys(at.pki, wantedKeys, signal);
  const authority = pairOf(at.pki, 'ca').cert;
  const server = apiserverUrl(at);
  await writeKubeconfig(at.kubeconfig, server, authority, { cert: pairOf(at.pki, 'admin') }, 'default');
  await writeKubeconfig(join(at.pki, 'kube-controller-manager.kubeconfig'), server, authority, { cert: pairOf(at.pki, 'kube-controller-manager') }, 'default');
  await writeKubeconfig(at.operator.kubeconfig, server, authority, { tokenFile: at.operator.token }, systemNamespace);
  const hash = createHash('sha256');
  for (const name of (await readdir(at.pki)).filter((each) => /\.(crt|pub)$/.test(each)).toSorted()) hash.update(await readFile(join(at.pki, name)));
  return hash.digest('hex');
};

const prepareSsh = async ({ at, signal }: Run): Promise<void> => {
  const dir = join(at.home, 'ssh');
  const key = join(dir, 'id_ed25519');
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const publicKey = () => readFile(`${key}.pub`, 'utf8');
  if ((await publicKey().catch(() => '')) === '') {
    await rm(key, { force: true });
    await runChild('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'strato', '-f', key], { cwd: dir, env: process.env, signal, timeoutMs: 20_000 });
  }
  const file = join(at.home, 'ssh-vm.yaml');
  await writeFile(`${file}.new`, sshVm(await publicKey(), at.ports));
  await rename(`${file}.new`, file);
};

const prepareServers = ({ at, report, signal }: Run): Promise<Servers> =>
  report.step('servers', async (tell) => {
    const servers = await ensureServers(tellProgress(tell), signal);
    await installKubectl(at, servers.kubectl);
    return servers;
  });

/** Namespace, ServiceAccounts, RBAC, Node, CRDs and policies, all by server-side apply. */
const applyApi = ({ at, report, signal }: Run): Promise<string> =>
  report.step('API and RBAC', async () => {
    const manifests = [join(at.root, 'hack', 'stack', 'manifests'), join(at.root, 'crds', 'generated')].flatMap((dir) => ['-f', dir]);
    await kubectl(at, ['apply', '--server-side', '--force-conflicts', '--field-manager=strato-up', ...manifests], signal);
    return kubectl(at, ['wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all'], signal);
  });

const runImages = async (run: Run, { arm64 }: Wishes): Promise<void> => {
  const { at, report, signal } = run;
  const image = (name: string, file: string, ensure: EnsureGuest) =>
    report.step(name, (tell) => ensureGuestImage(file, ensure, tell, signal), (how) => (how === 'kept' ? 'the one that this stack began with' : ''));
  await image('guest image', at.guestImage, ensureGuest);
  if (arm64) await image('arm64 image', at.arm64Image, ensureArm64Guest);
  await ensure(run, await imageServerService(run.at));
};

const runCluster = async (run: Run): Promise<Client> => {
  const { at, report } = run;
  const [servers, keys] = await Promise.all([prepareServers(run), report.step('keys', () => prepareKeys(run)), prepareSsh(run)]);
  await ensure(run, etcdService(at, servers, keys));
  await ensure(run, apiserverService(at, servers, keys));
  const kube = connectKube(loadConfig(at.kubeconfig), { userAgent: 'strato-up/0.1.0' });
  try {
    await Promise.all([ensure(run, controllerManagerService(at, servers, keys)), applyApi(run)]);
    await ensure(run, await tokenRenewerService(at, () => readNodeUid(kube)));
    await Promise.all([ensure(run, await operatorService(at, keys)), ensure(run, await agentService(at, keys, kube))]);
    return kube;
  } catch (thrown) {
    await kube[Symbol.asyncDispose]();
    throw thrown;
  }
};

const main = async (signal: AbortSignal, wishes: Wishes): Promise<void> => {
  const at = layout(join(import.meta.dirname, '..', '..'), process.env);
  using report = openReport();
  const startMs = performance.now();
  await using _lock = await takeLock(at.lock, { signal, onWait: () => report.say('another ./hack/up or ./hack/down is at work; waiting for it') });
  await mkdir(at.home, { recursive: true, mode: 0o700 });
  // What fails ends the others too; each process that is up stays, and the next run goes on from there.
  const failing = new AbortController();
  const run = { at, report, signal: AbortSignal.any([signal, failing.signal]) };
  // Before an agent is started, which starts guests by itself.
  const running = new Set((await observeHolders(at.agent.vms)).keys());
  const orStop = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (thrown) {
      failing.abort(thrown);
      throw thrown;
    }
  };
  const [images, cluster] = await Promise.allSettled([orStop(runImages(run, wishes)), orStop(runCluster(run))]);
  if (signal.aborted) throw signal.reason;
  if (failing.signal.aborted) {
    if (cluster.status === 'fulfilled') await cluster.value[Symbol.asyncDispose]();
    throw failing.signal.reason;
  }
  if (images.status === 'rejected') throw images.reason;
  if (cluster.status === 'rejected') throw cluster.reason;
  await using kube = cluster.value;
  const booted = wishes.vm ? await report.step('first-vm', (tell) => bootFirstVm({ at, kube, running, signal }, tell), ({ how }) => how) : undefined;
  const live = await Promise.all(processNames.map(async (name) => ({ name, pid: (await readLive(at.run, name))?.pid ?? 0 })));
  report.say(farewell(at, live.filter(({ pid }) => pid !== 0), booted && { uid: booted.vm.metadata.uid, how: booted.how }));
  report.say(`\nReady after ${showDuration(performance.now() - startMs)}.`);
};

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => stop.abort(new Error(`stopped by ${name}; ./hack/up goes on from here, ./hack/down ends what runs`)));
}
try {
  await main(stop.signal, { vm: !process.argv.includes('--no-vm'), arm64: process.argv.includes('--arm64') });
} catch (thrown) {
  console.error(`\n${messageOf(thrown)}`);
  process.exitCode = stop.signal.aborted ? 130 : 1;
}
