/** Held on a VM from its binding until its node has said that it is absent. */
export const vmFinalizer = 'strato.dev/vm';
/** On a HypervisorNode: uids of orphans, comma separated, that shall end. */
export const discardOrphanAnnotation = 'strato.dev/discard-orphan';
/** On a HypervisorNode: the agentId that an administrator accepts in place of the recorded one. */
export const acceptAgentAnnotation = 'strato.dev/accept-agent';
/** On our CRDs: allows their deletion. */
export const allowDeleteAnnotation = 'strato.dev/allow-delete';
/** Audience of the tokens that agents authenticate with. */
export const agentAudience = 'strato-operator';
/** Name of the agent's ServiceAccount in the operator's namespace. */
export const agentServiceAccount = 'strato-agent';
