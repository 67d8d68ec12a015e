/** Held on a VM from its binding until its node has said that it is absent. */
export const vmFinalizer = 'strato.dev/vm';
/** Held on a VirtualDisk until its node has said that its files are gone, or that a VM has it. */
export const diskFinalizer = 'strato.dev/disk';
/** Held on an image from its first VM on, until it is deleted and no VM uses it. */
export const imageFinalizer = 'strato.dev/image';
/** On a HypervisorNode: uids of orphans, comma separated, that shall end; of disks too. */
export const discardOrphanAnnotation = 'strato.dev/discard-orphan';
/** On a HypervisorNode: uids of orphans, comma separated, that the VirtualMachine of their namespace and name shall take over as they are; of a disk: that shall have a VirtualDisk. */
export const adoptOrphanAnnotation = 'strato.dev/adopt-orphan';
/** On a HypervisorNode: the agentId that an administrator accepts in place of the recorded one. */
export const acceptAgentAnnotation = 'strato.dev/accept-agent';
/** On our CRDs: allows their deletion. */
export const allowDeleteAnnotation = 'strato.dev/allow-delete';
/** Audience of the tokens that agents authenticate with. */
export const agentAudience = 'strato-operator';
/** Name of the agent's ServiceAccount in the operator's namespace. */
export const agentServiceAccount = 'strato-agent';

/** The uids that an annotation names, comma separated; none when it is not there. */
export const uidsIn = (annotations: Readonly<Record<string, string>> | undefined, name: string): string[] =>
  (annotations?.[name] ?? '').split(',').map((uid) => uid.trim()).filter((uid) => uid !== '');
