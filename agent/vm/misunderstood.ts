import type { ObservedVm } from '#crds/wire/observed.ts';

/** What is told of VMs whose desire this agent can not read: a newer operator wants something of which it has never heard. */
export type Misunderstood = {
  /** Notes it; returns what is now to be told of the VM. */
  note: (uid: string, why: string, last: ObservedVm | undefined) => ObservedVm;
  /** A desire of it was read; says whether that was news. */
  clear: (uid: string) => boolean;
  /** A report with what is noted. */
  told: (observed: ObservedVm) => ObservedVm;
};

/** Remembers which VMs want what this agent does not know. Their machines stay as they are, and no other VM suffers by it. */
export const makeMisunderstood = (agentVersion: string): Misunderstood => {
  const whys = new Map<string, string>();
  const told = (observed: ObservedVm): ObservedVm => {
    const why = whys.get(observed.uid);
    if (why === undefined) return observed;
    const message = `the agent of the node (version ${agentVersion}) does not understand what is wanted: ${why}; update it`;
    return { ...observed, trouble: { reason: 'AgentTooOld', message: message.slice(0, 4096), final: false } };
  };
  return {
    note: (uid, why, last) => {
      whys.set(uid, why);
      return told(last ?? { kind: 'vm', uid, generation: 0, epoch: 0, digest: '', state: 'preparing', disks: [], forwards: [] });
    },
    clear: (uid) => whys.delete(uid),
    told,
  };
};
