import type { Reason } from '#crds/v1alpha1/reasons.ts';
import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { KeptDisk } from '#crds/wire/kept.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import type { Claim } from '../disk/claims.ts';
import type { Unrecordable } from '../disk/recordeach.ts';
import type { Holder } from './holders.ts';
import type { Candidate, Free } from './place.ts';
import type { Architecture } from './needs.ts';
import type { SecretFact } from './secrets.ts';

/** What is known of one image that a VM refers to. `refused`: the copy of the VM's node is not that content, and no disk is made from it. */
export type ImageFact = { name: string; uid: string; architecture?: Architecture; digest?: string; failed?: string; refused?: string };

/**
 * What is known of the node that a VM is bound to.
 *
 *   connected   its session is joined: what it holds is known
 *   joining     there is no complete list yet (just connected, or this operator has just started)
 *   silent      it was not heard for 30 s
 */
export type Link = 'connected' | 'joining' | 'silent';

/** Everything that a decision about one VM rests on; read once, before it. */
export type VmFacts = {
  vm: VirtualMachine;
  clusterId: string;
  /** Every node, for a VM that has none. */
  candidates: readonly Candidate[];
  /** The bound node. */
  link: Link;
  /** The bound node is silent and has no HypervisorNode: somebody has said that it is gone for good. */
  nodeGone: boolean;
  /** What the others leave a bound VM that asks for more on its node; undefined before that has spoken. */
  room?: Free;
  /** Why the bound node keeps no new intent now. */
  refuses?: { reason: Reason; message: string };
  /** The desire does not fit into a frame that the bound node's agent reads. */
  oversize?: { frameBytes: number; maxFrameBytes: number };
  /** The bound node holds this uid, by its own word or since it was told. */
  held: boolean;
  /** The bound node is back and will say soon how the VM stands: what it reported before is old. */
  awaited: boolean;
  /** The latest report of the bound node about this uid. */
  report?: ObservedVm;
  /** Names of all disks of this VM that this operator has ever told the bound node to have. */
  toldDisks?: ReadonlySet<string>;
  /** The bound node has said that this uid is not there, after it was told to end it. */
  absent: boolean;
  /** The bound node says that this uid has ended for ever, although we never told it to end: the cluster was restored to an older state. */
  endedForEver: boolean;
  /** Images that the disks refer to, by name; a missing entry means that the object is not there. */
  images: ReadonlyMap<string, ImageFact>;
  /** Secrets that cloud-init refers to, by name; undefined when the guest has been given them. */
  secrets?: ReadonlyMap<string, SecretFact>;
  /** Its namespace; undefined while the cache does not have it. */
  namespace?: { uid: string; terminating: boolean };
  /** Disks that were kept after an earlier VM of this name and that it shall have, and does not have yet. */
  claims: readonly Claim[];
  /** Disks that the bound node keeps of this machine and that no VirtualDisk stands for yet. */
  unrecorded: readonly KeptDisk[];
  /** Those of them that could not be given a VirtualDisk a moment ago. */
  unrecordable?: readonly Unrecordable[];
  /** Whether the bound node's agent can keep disks; undefined before it has spoken. */
  keepsDisks?: boolean;
  /** Nodes that hold this uid, other than the bound one. */
  holders: readonly Holder[];
  /**
   * Another uid of this namespace and name that still lives on a node. `adopt`: its administrator wants this VM to take it over, it is the only
   * one, it is not ending, and its node is connected.
   */
  elder?: { node: string; uid: string; epoch: number; ending: boolean; adopt: boolean };
  /** A node that has not said yet what it holds, and that this VM without a node has to wait for; `forLong`: until it speaks, not only for a moment. */
  unheard?: { node: string; forLong: boolean };
  /** There is a HypervisorNode, and every one has a joined session, so nothing is hidden from us. */
  everyNodeReported: boolean;
  /** A node that has none. */
  unreported?: string;
};
