import { digestOf } from '#crds/kit/digest.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import type { Hypervisor, HypervisorCapabilities } from './hypervisor/driver.ts';
import type { Network } from './network/driver.ts';
import type { Storage } from './storage/driver.ts';
import type { Ledger } from './vm/ledger.ts';
import { toldDisks } from './vm/retain.ts';
import { within } from './vm/within.ts';

/** What a node is, as far as no driver knows it. */
export type NodeIdentity = Pick<NodeFacts, 'agentVersion' | 'kernel' | 'os' | 'architecture' | 'bootId'> & { cpus: number; memoryMiB: number };

/** What is told of a node. */
export type NodeFactsSource = {
  now: () => NodeFacts;
  /** As `now`; from here on only what differs from it is news. */
  told: () => NodeFacts;
  /** As `told`; undefined when the same was told last. */
  news: () => NodeFacts | undefined;
  /** Asks anew how large the storage is. Never rejects: when it does not answer the last word counts. */
  measure: () => Promise<void>;
};

const measureMs = 5_000;

/** What the drivers and the ledger of an agent tell of its node. */
export const makeNodeFacts = (
  { node: { cpus, memoryMiB, ...node }, hypervisor, network, storage }: { node: NodeIdentity; hypervisor: Hypervisor; network: Network; storage: Storage }, ledger: Ledger, signal: AbortSignal,
): NodeFactsSource => {
  let storageMiB = 0;
  // One that hangs keeps a thread of the process; it is not asked again before it has answered.
  let asking: ReturnType<Storage['space']> | undefined;
  const ask = (): ReturnType<Storage['space']> => (asking ??= storage.space().finally(() => { asking = undefined; }));
  let toldDigest = '';
  const now = (): NodeFacts => {
    const { version, accelerators, features, cpuModels, unready } = hypervisor.capabilities();
    const { mode, forwards, trouble } = network.capabilities();
    return {
      ...node, qemuVersion: version, accelerators: [...accelerators], features: [...features], cpuModels: cpuModelsOf(cpuModels), networkMode: mode, forwards,
      capacity: { cpus, memoryMiB, storageMiB },
      keptDisks: toldDisks(ledger.disks()),
      // What is still being found out is no trouble.
      troubles: [...ledger.troubles(), ...(unready && unready.reason !== 'Preparing' ? [unready] : []), ...(trouble ? [trouble] : [])].slice(0, 64).map(({ reason, message }) => ({ reason, message: message.slice(0, 4096) })),
    };
  };
  const note = (facts: NodeFacts): NodeFacts => {
    toldDigest = digestOf(facts);
    return facts;
  };
  return {
    now,
    told: () => note(now()),
    news: () => {
      const facts = now();
      return digestOf(facts) === toldDigest ? undefined : note(facts);
    },
    measure: async () => {
      storageMiB = await within(measureMs, signal, 'asking for the size of the storage', ask).then(({ sizeMiB }) => sizeMiB, () => storageMiB);
    },
  };
};

const cpuModelsOf = (models: HypervisorCapabilities['cpuModels']): NonNullable<NodeFacts['cpuModels']> => ({
  ...(models.amd64 ? { amd64: [...models.amd64] } : {}), ...(models.arm64 ? { arm64: [...models.arm64] } : {}),
});
