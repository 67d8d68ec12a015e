import type { ChildProcess } from 'node:child_process';
import { openTestWeb, type TestWeb } from '#agent/image/web/testweb.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { user } from './objects.ts';
import { operatorProcess } from './operatorprocess.ts';
import { endChild, runs } from './process.ts';
import { type RealNode, type RealNodeOptions, startRealNode } from './realnode.ts';

/** One of our processes, which may be ended and started again. */
export type Part = {
  child: () => ChildProcess;
  /** Starts it, or another one beside it, which then is the one that is meant. */
  start: () => Promise<ChildProcess>;
  /** Starts it when it does not run. */
  ensure: () => Promise<void>;
};

/** Everything but the console, each in a process of its own: a real API server, the operator, the agent with real QEMU. An image server is in this one. */
export type Apart = AsyncDisposable & { cluster: Cluster; node: RealNode; operator: Part; agent: Part; web: TestWeb; me: ReturnType<typeof user>; operatorLog: string };

/** `image` is put into namespace default under its name. `tokenSeconds`: how long the credentials of operator and agent last. */
export type ApartOptions = RealNodeOptions & { image: { name: string; bytes: Uint8Array } };

const readyMs = 120_000;

/** Starts all of it; resolves when the node and the image are Ready. Needs root and what `./hack/up` installs. */
export const startApart = async ({ image, ...options }: ApartOptions): Promise<Apart> => {
  await using opened = new AsyncDisposableStack();
  const cluster = opened.use(await startCluster(options.tokenSeconds === undefined ? {} : { tokenSeconds: options.tokenSeconds }));
  const web = await openTestWeb();
  opened.defer(() => web.close());
  const operators = await operatorProcess(cluster);
  const operator = partOf(operators.start);
  opened.defer(operator.endAll);
  const node = opened.use(await startRealNode(cluster, operators.url, 'node-1', options));
  const agent = partOf(node.start, node.agent());
  opened.defer(agent.endAll);
  await operator.start();
  const me = user(cluster.kube);
  const url = web.serve(`/${image.name}.raw`, { is: 'bytes', bytes: Buffer.from(image.bytes) });
  await me.apply({
    apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: image.name, namespace: 'default' }, spec: { source: { http: { url } }, format: 'raw' },
  });
  await me.nodeIs('node-1', 'Ready=True Ready', readyMs);
  await me.imageIs(image.name, 'Ready=True Ready', readyMs);
  const all = opened.move();
  return { cluster, node, operator, agent, web, me, operatorLog: operators.log, [Symbol.asyncDispose]: () => all.disposeAsync() };
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
