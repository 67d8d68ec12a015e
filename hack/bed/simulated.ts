import { type SimNode, type SimOptions, startSimNode } from '../sim/node.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { imageManifest, user } from './objects.ts';
import { type BedOperator, type BedOperatorOptions, startBedOperator } from './operator.ts';

/** A real API server, the operator in this process, and the real agent on a pretend node `node-1`; for tests. */
export type Simulated = AsyncDisposable & {
  cluster: Cluster;
  me: ReturnType<typeof user>;
  /** The operator that was started last. */
  operator: () => BedOperator;
  /** Starts another operator where the last one was, which must have been stopped. */
  startOperator: (options?: BedOperatorOptions) => Promise<BedOperator>;
  /** The agent that was started last. */
  node: () => SimNode;
  /** Starts another agent on the same node: what ran there, runs. The last one must have been stopped. */
  startNode: (options?: Partial<SimOptions>) => Promise<SimNode>;
};

/** Starts all of it; `image`: with the image `guest` in namespace default, which the node has already. Dispose it at the end. */
export const startSimulated = async (options: Partial<SimOptions> = {}, { image = true }: { image?: boolean } = {}): Promise<Simulated> => {
  await using opened = new AsyncDisposableStack();
  const cluster = opened.use(await startCluster());
  let operator = await startBedOperator(cluster);
  opened.defer(() => operator.stop());
  const { url } = operator;
  const uplink = { name: 'node-1', url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-1' }) };
  let node = await startSimNode({ ...uplink, ...options });
  opened.defer(() => node.stop());
  const me = user(cluster.kube);
  if (image) {
    await me.apply(imageManifest());
    await me.imageIs('guest', 'Ready=True Ready');
  }
  const all = opened.move();
  return {
    cluster, me,
    operator: () => operator,
    startOperator: async (wish = {}) => (operator = await startBedOperator(cluster, { port: Number(new URL(url).port), ...wish })),
    node: () => node,
    startNode: async (wish = {}) => (node = await startSimNode({ ...uplink, ...options, world: node.world, ...wish })),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
};
