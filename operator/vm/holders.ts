import type { HypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { adoptOrphanAnnotation, uidsIn } from '#crds/v1alpha1/names.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { Cache } from '../cache.ts';
import type { Claim, Fleet } from '../fleet/fleet.ts';
import type { VmFacts } from './facts.ts';
import { machineUuid } from './identity.ts';

/** A node that holds a machine. `said`: by its own word since this operator started; else by what was last recorded of a node that has not spoken yet. */
export type Holder = { node: string; epoch: number; ending: boolean; said: boolean };

type Sources = { clusterId: string; nodes: Cache<HypervisorNode>; fleet: Fleet };

/** Whether a claim counts: that of a node whose HypervisorNode was deleted counts only while its agent is connected. */
const counts = ({ node }: Claim, { nodes, fleet }: Omit<Sources, 'clusterId'>): boolean =>
  fleet.link(node) === 'connected' || nodes.all().some(({ meta }) => meta.name === node);

/** What the last operator recorded of the orphans of nodes that this one has not heard yet. */
const recorded = ({ nodes, fleet }: Omit<Sources, 'clusterId'>) =>
  nodes.list().flatMap(({ metadata: { name: node }, status: { orphans = [] } }) => (orphans.length === 0 || fleet.hasListed(node) ? [] : orphans.map((orphan) => ({ node, ...orphan }))));

/** Every node that holds the machine of a uid. Claims are believed: a uid can not be guessed, so a node that knows it was once told it. */
export const holdersOf = (uid: string, sources: Omit<Sources, 'clusterId'>): Holder[] => {
  const said = sources.fleet.claims(uid).filter((claim) => counts(claim, sources)).map(({ node, epoch, ending }) => ({ node, epoch, ending, said: true }));
  const last = recorded(sources).filter((orphan) => orphan.uid === uid && !said.some(({ node }) => node === orphan.node));
  return [...said, ...last.map(({ node }) => ({ node, epoch: 0, ending: false, said: false }))];
};

/** Whether a node can prove that it was given a machine of this name: names can be guessed, the UUID of a name can not. */
export const isProved = (uuid: string | undefined, { namespace, name }: { namespace: string; name: string }, clusterId: string): boolean =>
  uuid !== undefined && uuid === machineUuid(clusterId, namespace, name);

/** The machine of a VM's name that stands in its way, or that it shall take over. */
export const elderOf = ({ metadata }: VirtualMachine, sources: Sources): VmFacts['elder'] => {
  const { fleet, nodes, clusterId } = sources;
  const { uid, namespace, name } = metadata;
  const said = fleet.eldersOf(metadata).filter((claim) => isProved(claim.uuid, metadata, clusterId) && counts(claim, sources));
  const last = recorded(sources).filter((orphan) => orphan.uid !== uid && orphan.namespace === namespace && orphan.name === name);
  const [elder, ...more] = [...said, ...last.map((orphan) => ({ node: orphan.node, uid: orphan.uid, epoch: 1, ending: false }))];
  if (!elder) return undefined;
  const wanted = uidsIn(nodes.get(elder.node)?.metadata.annotations, adoptOrphanAnnotation).includes(elder.uid);
  const adopt = wanted && more.length === 0 && !elder.ending && fleet.link(elder.node) === 'connected' && fleet.hasListed(elder.node);
  return { node: elder.node, uid: elder.uid, epoch: elder.epoch, ending: elder.ending, adopt };
};
