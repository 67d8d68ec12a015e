import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify as stringifyToml } from 'smol-toml';
import { request } from 'undici';
import { z } from 'zod';
import { hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import type { Kube } from '#operator/kube/kube.ts';
import { isConnected } from './connected.ts';
import { pairOf } from './keys.ts';
import { type Layout, nodeName, systemNamespace } from './layout.ts';
import { readLive } from './record.ts';
import type { Service } from './service.ts';
import { digestSources } from './sources.ts';
import { isDue, type WantedToken } from './token.ts';

const node = (at: Layout) => join(at.root, 'node_modules', '.bin', 'node');
/** Compiled modules are kept: each start saves a third of a second. */
const compiled = (at: Layout) => ({ NODE_COMPILE_CACHE: join(at.home, 'compiled') });

const answersOk = async (url: string, signal: AbortSignal): Promise<void> => {
  const response = await request(url, { signal });
  const body = await response.body.text();
  if (response.statusCode !== 200) throw new Error(`${url} answers ${response.statusCode}: ${body.slice(0, 200)}`);
};

/** Serves the guests' disks under names that stay when a guest is made anew; that for arm64 once it was made. */
export const imageServerService = async (at: Layout): Promise<Service> => ({
  name: 'image-server',
  argv: [node(at), join(at.root, 'hack', 'stack', 'image-server.ts'), String(at.ports.images), `guest.qcow2=${at.guestImage}`, `guest-arm64.qcow2=${at.arm64Image}`],
  env: compiled(at),
  sources: await digestSources(at.root, ['hack/stack/image-server.ts']),
  ready: (signal) => answersOk(`http://127.0.0.1:${at.ports.images}/healthz`, signal),
  readyMs: 20_000,
});

/** Keeps the tokens of operator and agent fresh. Ready when both are there and fresh. */
export const tokenRenewerService = async (at: Layout, nodeUid: () => Promise<string>): Promise<Service> => {
  await mkdir(at.agent.dir, { recursive: true, mode: 0o700 });
  await mkdir(at.operator.dir, { recursive: true, mode: 0o700 });
  const fresh = async (file: string, want: WantedToken) => {
    if (isDue(await readFile(file, 'utf8').catch(() => undefined), want, new Date())) throw new Error(`${file} holds no fresh token`);
  };
  return {
    name: 'token-renewer',
    argv: [node(at), join(at.root, 'hack', 'stack', 'token-renewer.ts'), nodeName, at.agent.token, at.operator.token],
    env: { KUBECONFIG: at.kubeconfig, ...compiled(at) },
    sources: await digestSources(at.root, ['hack/stack/token-renewer.ts', 'hack/stack/token.ts', 'operator/kube', 'crds']),
    ready: async () => {
      await fresh(at.operator.token, { namespace: systemNamespace, serviceAccount: 'strato-operator' });
      await fresh(at.agent.token, { namespace: systemNamespace, serviceAccount: 'strato-agent', node: { name: nodeName, uid: await nodeUid() } });
    },
    readyMs: 30_000,
  };
};

/** The operator, with the rights of its own ServiceAccount. Ready when its caches have synced. */
export const operatorService = async (at: Layout, keys: string): Promise<Service> => {
  const { cert, key } = pairOf(at.pki, 'operator');
  return {
    name: 'operator',
    argv: [node(at), join(at.root, 'operator', 'main.ts')],
    env: {
      KUBECONFIG: at.operator.kubeconfig,
      STRATO_NAMESPACE: systemNamespace,
      STRATO_AGENT_LISTEN: `127.0.0.1:${at.ports.agents}`,
      STRATO_HTTP_LISTEN: `127.0.0.1:${at.ports.operatorHttp}`,
      STRATO_TLS_CERT_FILE: cert,
      STRATO_TLS_KEY_FILE: key,
      STRATO_IDENTITY: 'operator',
      ...compiled(at),
    },
    sources: `${keys} ${await digestSources(at.root, ['operator', 'crds'])}`,
    ready: (signal) => answersOk(`http://127.0.0.1:${at.ports.operatorHttp}/readyz`, signal),
    readyMs: 60_000,
  };
};

/** The agent of node-1. Ready when it is connected and the operator says so. */
export const agentService = async (at: Layout, keys: string, kube: Kube): Promise<Service> => {
  await mkdir(at.agent.dir, { recursive: true, mode: 0o700 });
  // Each QEMU makes its sockets below, as a user of its own.
  await mkdir(at.agent.sockets, { recursive: true });
  await chmod(at.agent.sockets, 0o711);
  const config = agentConfig(at);
  await writeFile(`${at.agent.config}.new`, config, { mode: 0o600 });
  await rename(`${at.agent.config}.new`, at.agent.config);
  return {
    name: 'agent-node-1',
    argv: [node(at), join(at.root, 'agent', 'main.ts'), '--config', at.agent.config],
    env: compiled(at),
    sources: `${keys} ${config} ${await digestSources(at.root, ['agent', 'crds'])}`,
    ready: async (signal) => {
      const pid = (await readLive(at.run, 'agent-node-1'))?.pid;
      // What the API server has of it may be what was true before it started.
      if (pid === undefined || !(await isConnected(pid, at.ports.agents))) throw new Error('the agent has no connection to the operator');
      const { status } = hypervisorNode.parse(await kube.request('GET', `/apis/strato.dev/v1alpha1/hypervisornodes/${nodeName}`, { signal }));
      const connected = status.conditions?.find(({ type }) => type === 'AgentConnected');
      if (connected?.status !== 'True') throw new Error(`the agent is not connected: ${connected?.message ?? 'the operator has not said a word about it'}`);
    },
    readyMs: 90_000,
  };
};

/** The agent's configuration file. */
const agentConfig = (at: Layout): string => stringifyToml({
  control_plane_url: `https://127.0.0.1:${at.ports.agents}`,
  control_plane_ca: pairOf(at.pki, 'ca').cert,
  token_file: at.agent.token,
  state_dir: at.agent.dir,
  image_cache_dir: at.agent.images,
  // Of the image server.
  image_allowed_networks: ['127.0.0.1/32'],
  qemu_socket_dir: at.agent.sockets,
  network_mode: 'user',
});

/** The uid of the Node object of node-1. */
export const readNodeUid = async (kube: Kube): Promise<string> =>
  z.object({ metadata: z.object({ uid: z.string() }) }).parse(await kube.request('GET', `/api/v1/nodes/${nodeName}`)).metadata.uid;
