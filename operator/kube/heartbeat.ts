import { createHash } from 'node:crypto';
import type { Clock } from '#crds/kit/clock.ts';
import { isNotFound, type Kube } from './kube.ts';
import { microTime } from './microtime.ts';
import { leases, pathOf } from './resource.ts';

/** The Leases that tell of the nodes' life: one a node, in the operator's namespace. */
export type Heartbeats = {
  /** The agent of the node was heard: renews its Lease, at most once in 10 s. Faults: KubeFault. */
  beat: (node: string, signal?: AbortSignal) => Promise<void>;
};

/** Seconds without a beat after which a reader may call the node silent. */
const leaseSeconds = 40;
const leastPauseMs = 9_500;

/** `node-NAME`; for names too long for that, a name by their digest. */
export const heartbeatName = (node: string): string =>
  node.length <= 248 ? `node-${node}` : `node-${createHash('sha256').update(node).digest('hex').slice(0, 40)}`;

/** Node liveness by Lease, so that no status carries a heartbeat. Source: KEP-589 (node heartbeats by Lease). */
export const makeHeartbeats = ({ kube, namespace, clock }: { kube: Kube; namespace: string; clock: Clock }): Heartbeats => {
  const lastMs = new Map<string, number>();
  return {
    beat: async (node, signal) => {
      const nowMs = clock.monotonicMs();
      const beforeMs = lastMs.get(node) ?? Number.NEGATIVE_INFINITY;
      if (nowMs - beforeMs < leastPauseMs) return;
      // At once: a burst of frames is one beat.
      lastMs.set(node, nowMs);
      const spec = { holderIdentity: node, leaseDurationSeconds: leaseSeconds, renewTime: microTime(clock.now()) };
      const name = heartbeatName(node);
      try {
        await kube.request('PATCH', pathOf(leases, { namespace, name }), { body: { spec }, contentType: 'application/merge-patch+json', signal, deadlineMs: 5_000 });
      } catch (thrown) {
        if (!isNotFound(thrown)) {
          lastMs.set(node, beforeMs);
          throw thrown;
        }
        const body = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace, labels: { 'app.kubernetes.io/managed-by': 'strato' } }, spec };
        await kube.request('POST', pathOf(leases, { namespace }), { body, signal, deadlineMs: 5_000 });
      }
    },
  };
};
