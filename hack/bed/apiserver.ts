import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '#operator/kube/auth.ts';
import { type Client, connectKube } from '#operator/kube/client.ts';
import { ensureServers } from '../servers/build.ts';
import { signalIfSame } from '../stack/end.ts';
import { observeProcess } from '../stack/identity.ts';
import { ensureKeys, type Pair, pairOf } from '../stack/keys.ts';
import { type Speaker, writeKubeconfig } from '../stack/kubeconfig.ts';
import { type Layout, layout } from '../stack/layout.ts';
import { readLive } from '../stack/record.ts';
import { apiserverService, apiserverUrl, controllerManagerService, etcdService, wantedKeys } from '../stack/servers.ts';
import { ensureService, type Service } from '../stack/service.ts';
import { freePorts } from './ports.ts';
import { until } from './until.ts';

/** A real etcd and kube-apiserver for tests. RBAC is on; disposing ends both and removes all that they wrote. */
export type ApiServer = AsyncDisposable & {
  url: string;
  /** Where everything of it lies; removed with it. A test may put files here. */
  dir: string;
  /** Kubeconfig of an administrator. */
  kubeconfig: string;
  /** The administrator's client; closed with the server. */
  kube: Client;
  /** The file with the authority that signed the API server's and the operator's certificate. */
  authority: string;
  /** A certificate for 127.0.0.1 and localhost, signed by `authority`: for an operator under test. */
  operatorTls: Pair;
  /** The key that signs ServiceAccount tokens, PEM: for a test that forges one. */
  signingKey: string;
  /** The audit log: one event a line, at metadata level, of finished requests. */
  audit: string;
  /** Writes a kubeconfig `NAME.kubeconfig` for another speaker and gives its path. */
  kubeconfigOf: (name: string, speaker: Speaker) => Promise<string>;
  /** Ends the API server by SIGKILL; etcd goes on. Returns when it is gone. */
  kill: () => Promise<void>;
  /** Starts the API server again, on the same port and etcd; returns when it is ready. */
  start: () => Promise<void>;
  /** Copies what etcd holds; the function that it gives puts that back, as after a restore from a backup. Both restart etcd and the API server. */
  snapshot: () => Promise<() => Promise<void>>;
  /** Stops the API server in its tracks (SIGSTOP), or lets it go on (SIGCONT): connections stay open and nobody answers. */
  freeze: (frozen: boolean) => Promise<void>;
};

/** What a test may ask for: `controllers` runs kube-controller-manager too (namespaces end, RBAC aggregates, ServiceAccounts appear). */
export type ApiServerOptions = { controllers?: boolean; signal?: AbortSignal };

const repo = join(import.meta.dirname, '..', '..');
const startMs = 120_000;

/**
 * Starts a real API server on free ports of 127.0.0.1, in about 6 s once the servers are in the cache. One serves a whole test
 * file. Its processes end with this one, however that ends. Faults: ServiceFailed with the last lines of a log, those of `ensureServers`.
 */
export const startApiServer = async ({ controllers = false, signal: given }: ApiServerOptions = {}): Promise<ApiServer> => {
  const servers = await ensureServers(() => undefined, given);
  const bound = () => AbortSignal.any([AbortSignal.timeout(startMs), ...(given ? [given] : [])]);
  await using undo = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'strato-bed-'));
  undo.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }));
  const at = await layoutIn(dir);
  await ensureKeys(at.pki, wantedKeys, bound());
  const authority = pairOf(at.pki, 'ca').cert;
  const url = apiserverUrl(at);
  const kubeconfigOf = async (name: string, speaker: Speaker) => {
    const file = join(dir, `${name}.kubeconfig`);
    await writeKubeconfig(file, url, authority, speaker, 'default');
    return file;
  };
  const run = async (service: Service) => {
    undo.defer(() => end(at, service.name));
    await ensureService(at, endingWithUs(service), bound());
  };
  const etcd = etcdService(at, servers, '');
  // Tests outlive no power cut.
  const store: Service = { ...etcd, argv: [...etcd.argv, '--unsafe-no-fsync'] };
  await run(store);
  const api = apiserverService(at, servers, '');
  await run(api);
  if (controllers) {
    await writeKubeconfig(join(at.pki, 'kube-controller-manager.kubeconfig'), url, authority, { cert: pairOf(at.pki, 'kube-controller-manager') }, 'default');
    await run(controllerManagerService(at, servers, ''));
  }
  const kubeconfig = await kubeconfigOf('admin', { cert: pairOf(at.pki, 'admin') });
  const kube = undo.use(connectKube(loadConfig(kubeconfig), { userAgent: 'strato-test/0.1.0' }));
  const stack = undo.move();
  const start = async () => { await ensureService(at, endingWithUs(api), bound()); };
  /** Does something to etcd's files while nobody uses them. */
  const offline = async (work: () => Promise<void>) => {
    await end(at, 'kube-apiserver');
    await end(at, 'etcd');
    await work();
    await ensureService(at, endingWithUs(store), bound());
    await start();
  };
  return {
    url, dir, kubeconfig, kube, authority, kubeconfigOf,
    operatorTls: pairOf(at.pki, 'operator'),
    signingKey: join(at.pki, 'service-accounts.key'),
    audit: join(at.logs, 'audit.log'),
    kill: () => end(at, 'kube-apiserver'),
    start,
    snapshot: async () => {
      const copy = await mkdtemp(join(dir, 'snapshot-'));
      await offline(() => cp(at.etcd, copy, { recursive: true }));
      return () => offline(async () => {
        await rm(at.etcd, { recursive: true });
        await cp(copy, at.etcd, { recursive: true });
      });
    },
    freeze: async (frozen) => {
      const live = await readLive(at.run, 'kube-apiserver');
      if (live === undefined || !(await signalIfSame(live, frozen ? 'SIGSTOP' : 'SIGCONT'))) throw new Error('the API server does not run');
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
};

const layoutIn = async (dir: string): Promise<Layout> => {
  const plan = layout(dir);
  const [etcd = 0, etcdPeer = 0, apiserver = 0, controllerManager = 0] = await freePorts(4);
  return { ...plan, root: repo, ports: { ...plan.ports, etcd, etcdPeer, apiserver, controllerManager } };
};

/**
 * The kernel ends the process when ours is gone, also by SIGKILL. Source: setpriv(1), PR_SET_PDEATHSIG. It collects its garbage less often: a fifth of the
 * API server's start is that.
 */
const endingWithUs = (service: Service): Service => ({
  ...service, argv: ['setpriv', '--pdeathsig', 'KILL', '--', ...service.argv], env: { ...service.env, GOGC: '400' },
});

const end = async (at: Layout, name: Service['name']): Promise<void> => {
  const live = await readLive(at.run, name);
  if (live === undefined || !(await signalIfSame(live, 'SIGKILL'))) return;
  await until(`${name} to be gone`, async () => (await observeProcess(live.pid)) === undefined, startMs);
};

