import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { Cluster } from './cluster.ts';
import { freePorts } from './ports.ts';
import { startNode } from './process.ts';

const root = join(import.meta.dirname, '..', '..');

/** The operator as a process of its own, as a pod or `./hack/up` runs it. */
export type OperatorProcess = {
  /** Where agents dial; the same for every start. */
  url: string;
  log: string;
  /** Starts one; who starts it ends it. */
  start: () => Promise<ChildProcess>;
};

/** Prepares the process of an operator on a real API server; nothing is started yet. */
export const operatorProcess = async (cluster: Cluster): Promise<OperatorProcess> => {
  const [agents = 0, http = 0] = await freePorts(2);
  const log = join(cluster.dir, 'operator.log');
  const env = {
    KUBECONFIG: cluster.operatorKubeconfig, STRATO_AGENT_LISTEN: `127.0.0.1:${agents}`, STRATO_HTTP_LISTEN: `127.0.0.1:${http}`,
    STRATO_TLS_CERT_FILE: cluster.operatorTls.cert, STRATO_TLS_KEY_FILE: cluster.operatorTls.key, STRATO_IDENTITY: 'operator',
  };
  return { url: `https://127.0.0.1:${agents}`, log, start: () => startNode([join(root, 'operator', 'main.ts')], env, log) };
};
