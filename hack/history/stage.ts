import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTestWeb } from '#agent/image/web/testweb.ts';
import { type Cluster, startCluster } from '../bed/cluster.ts';
import { user } from '../bed/objects.ts';
import { operatorProcess } from '../bed/operatorprocess.ts';
import { endChild, runs } from '../bed/process.ts';
import { type RealNode, startRealNode } from '../bed/realnode.ts';
import { diaryGuest } from './guest.ts';
import { startWitness, type Witness } from './witnessed.ts';

/** One of our processes, which may be ended and started again. */
export type Part = {
  child: () => ChildProcess;
  /** Starts it, or another one beside it, which then is the one that is meant. */
  start: () => Promise<ChildProcess>;
  /** Starts it when it does not run. */
  ensure: () => Promise<void>;
};

/** All of Strato as processes of their own: a real API server, the operator, the agent with real QEMU; and the witness beside it. */
export type Stage = AsyncDisposable & {
  cluster: Cluster;
  node: RealNode;
  operator: Part;
  agent: Part;
  witness: Witness;
  /** Where the logs lie; removed with the stage. */
  logs: { agent: string; operator: string; audit: string };
};

const readyMs = 120_000;
/** Longer than any history. */
const tokenSeconds = 24 * 3600;

/** Opens the stage, with the image `diary` in namespace default, whose guest is `diaryGuest`. Needs root and what `./hack/up` installs. */
export const openStage = async (): Promise<Stage> => {
  await using opened = new AsyncDisposableStack();
  const cluster = opened.use(await startCluster({ tokenSeconds }));
  const web = await openTestWeb();
  opened.defer(() => web.close());
  const operators = await operatorProcess(cluster);
  const operator = partOf(operators.start);
  opened.defer(operator.endAll);
  const node = opened.use(await startRealNode(cluster, operators.url, 'node-1', { tokenSeconds }));
  const agent = partOf(node.start, node.agent());
  opened.defer(agent.endAll);
  const folder = await mkdtemp(join(tmpdir(), 'strato-history-'));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const witness = opened.use(await startWitness(node.paths.vms, join(folder, 'witness')));
  await operator.start();
  const me = user(cluster.kube);
  const url = web.serve('/diary.raw', { is: 'bytes', bytes: Buffer.from(diaryGuest()) });
  await me.apply({
    apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'diary', namespace: 'default' }, spec: { source: { http: { url } }, format: 'raw' },
  });
  await me.nodeIs('node-1', 'Ready=True Ready', readyMs);
  await me.imageIs('diary', 'Ready=True Ready', readyMs);
  const all = opened.move();
  return { cluster, node, operator, agent, witness, logs: { agent: node.logFile, operator: operators.log, audit: cluster.audit }, [Symbol.asyncDispose]: () => all.disposeAsync() };
};

const partOf = (start: () => Promise<ChildProcess>, first?: ChildProcess): Part & { endAll: () => Promise<void> } => {
  const children = first ? [first] : [];
  const child = (): ChildProcess => {
    const last = children.at(-1);
    if (!last) throw new Error('nothing was started');
    return last;
  };
  const begin = async (): Promise<ChildProcess> => {
    const next = await start();
    children.push(next);
    return next;
  };
  return {
    child, start: begin,
    ensure: async () => { if (!runs(child())) await begin(); },
    endAll: async () => void (await Promise.all(children.map((each) => endChild(each, 'SIGKILL')))),
  };
};
