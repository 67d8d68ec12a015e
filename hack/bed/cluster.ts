import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { agentAudience, agentServiceAccount } from '#crds/v1alpha1/names.ts';
import { tokenRequest } from '../stack/token.ts';
import { systemNamespace } from '../stack/layout.ts';
import { type ApiServer, type ApiServerOptions, startApiServer } from './apiserver.ts';
import { apply, applyFolder } from './apply.ts';
import { installCrds } from './crds.ts';

/** What a token shall say; by default an agent's token of 10 minutes, which is the shortest life that the API server gives. */
export type TokenWish = { node?: string | undefined; audience?: string | undefined; serviceAccount?: string; namespace?: string; seconds?: number };

/** A real API server with everything in it that Strato needs: CRDs, namespace, ServiceAccounts and their rights. */
export type Cluster = ApiServer & {
  /** Kubeconfig with the rights of the operator's ServiceAccount. */
  operatorKubeconfig: string;
  /** Makes a Node object and gives its uid. */
  addNode: (name: string) => Promise<string>;
  /** A token of an agent on `node`, or of whom the wish names. Without a node it is bound to none; `audience: ''` means the API server's own. */
  token: (wish: TokenWish) => Promise<string>;
};

/** `tokenSeconds`: how long the operator's credential lasts; an hour when unset. */
export type ClusterOptions = ApiServerOptions & { tokenSeconds?: number };

const withUid = z.object({ metadata: z.object({ uid: z.string() }) });
const withToken = z.object({ status: z.object({ token: z.string().min(1) }) });
const repo = join(import.meta.dirname, '..', '..');

/** Starts a real API server and installs Strato's objects, as `./hack/up` does. Dispose it at the end. */
export const startCluster = async ({ tokenSeconds = 3600, ...options }: ClusterOptions = {}): Promise<Cluster> => {
  const server = await startApiServer(options);
  try {
    const { kube } = server;
    await applyFolder(kube, join(repo, 'hack', 'stack', 'manifests'));
    await installCrds(kube);
    const addNode = async (name: string) => withUid.parse(await apply(kube, { apiVersion: 'v1', kind: 'Node', metadata: { name }, spec: {} })).metadata.uid;
    const token = async ({ node, audience = agentAudience, serviceAccount = agentServiceAccount, namespace = systemNamespace, seconds = 600 }: TokenWish) => {
      const bound = node === undefined ? {} : { node: { name: node, uid: await addNode(node) } };
      const body = tokenRequest({ serviceAccount, namespace, ...(audience === '' ? {} : { audience }), ...bound }, seconds);
      return withToken.parse(await kube.request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts/${serviceAccount}/token`, { body })).status.token;
    };
    const tokenFile = join(server.dir, 'operator', 'token');
    await mkdir(join(server.dir, 'operator'), { recursive: true });
    await writeFile(tokenFile, await token({ serviceAccount: 'strato-operator', audience: '', seconds: tokenSeconds }), { mode: 0o600 });
    return { ...server, addNode, token, operatorKubeconfig: await server.kubeconfigOf('operator', { tokenFile }) };
  } catch (thrown) {
    await server[Symbol.asyncDispose]();
    throw thrown;
  }
};
