import { testGuest } from '#agent/hypervisor/testguest.ts';
import { openTestWeb, type TestWeb } from '#agent/image/web/testweb.ts';
import { apiVersion } from '#crds/v1alpha1/meta.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { user } from './objects.ts';
import { type BedOperator, startBedOperator } from './operator.ts';
import { type RealNode, type RealNodeOptions, startRealNode } from './realnode.ts';

// Processes start slowly where every core is busy.
const startMs = 120_000;

/** Everything but the console, for tests: a real API server, the operator in this process, a real agent with real QEMU, an image server. */
export type Whole = AsyncDisposable & { cluster: Cluster; operator: BedOperator; node: RealNode; web: TestWeb; me: ReturnType<typeof user> };

/** Serves the bytes of a disk, has them imported into namespace default under a name, and waits until that is Ready. They are a raw disk unless `spec` says more. */
export const bringImage = async ({ web, me }: Pick<Whole, 'web' | 'me'>, name: string, bytes: Buffer, spec: { format?: 'raw' | 'qcow2'; architecture?: string } = {}): Promise<void> => {
  const url = web.serve(`/${name}`, { is: 'bytes', bytes });
  await me.apply({ apiVersion, kind: 'VirtualMachineImage', metadata: { name, namespace: 'default' }, spec: { source: { http: { url } }, format: 'raw', ...spec } });
  await me.imageIs(name, 'Ready=True Ready', startMs);
};

/**
 * Starts all of it, with the image `guest` in namespace default: a boot sector that prints `up` on its serial console and
 * powers itself off when it is told `q` there. It does not heed the power button.
 */
export const startWhole = async (options: RealNodeOptions = {}): Promise<Whole> => {
  await using opened = new AsyncDisposableStack();
  const cluster = opened.use(await startCluster());
  const operator = await startBedOperator(cluster);
  opened.defer(() => operator.stop());
  const web = await openTestWeb();
  opened.defer(() => web.close());
  const node = opened.use(await startRealNode(cluster, operator.url, 'node-1', options));
  const me = user(cluster.kube);
  await me.nodeIs('node-1', 'Ready=True Ready', startMs);
  await bringImage({ web, me }, 'guest', Buffer.from(testGuest()));
  const all = opened.move();
  return { cluster, operator, node, web, me, [Symbol.asyncDispose]: () => all.disposeAsync() };
};
