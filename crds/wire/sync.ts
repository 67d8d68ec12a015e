import type { Doomed, Held, ToOperator } from './messages.ts';

/**
 * What the operator believes that one agent holds, over one connection.
 *
 *   joining   hello came, the list of what it holds is not complete: nothing is concluded from it; `told` is what it held before
 *   joined    `told` is what the agent said it holds, plus what it was told since
 */
export type AgentView =
  | { is: 'joining'; told: ReadonlyMap<string, Held> }
  | { is: 'joined'; told: ReadonlyMap<string, Held> };

/** The view of an agent that has never said what it holds. */
export const joining: AgentView = { is: 'joining', told: new Map() };

/** What the operator wants of one node: digests by uid, and the uids that must end. */
export type Want = { objects: ReadonlyMap<string, Held>; doomed: ReadonlyMap<string, Doomed> };

/** What has to be said now, and which VMs the node holds that nobody wants. */
export type Sync = { send: readonly string[]; end: readonly { uid: string; kind: Doomed }[]; orphans: readonly Held[] };

/**
 * Compares what is wanted with what the agent holds. A VM that is held and neither wanted nor doomed is an orphan: it is
 * listed and left alone. An image that is held and not wanted is only a cached copy; whoever dooms it decides that.
 */
export const planSync = (want: Want, view: AgentView): Sync => {
  if (view.is === 'joining') return { send: [], end: [], orphans: [] };
  const doomed = [...want.doomed].map(([uid, kind]) => ({ uid, kind }));
  const missing = [...want.objects.values()].filter(({ uid, digest }) => {
    const told = view.told.get(uid);
    return !want.doomed.has(uid) && !told?.ending && told?.digest !== digest;
  });
  const orphans = [...view.told.values()].filter(
    ({ uid, kind, ending }) => kind === 'vm' && !ending && !want.objects.has(uid) && !want.doomed.has(uid),
  );
  // A VM's images go first, so that the agent never has to wait for a frame that is already on its way.
  missing.sort((a, b) => (a.kind === b.kind ? 0 : a.kind === 'image' ? -1 : 1));
  return { send: missing.map(({ uid }) => uid), end: doomed, orphans };
};

/** The view after a desire was sent. */
export const afterSend = (view: AgentView, sent: Held): AgentView => ({ ...view, told: new Map(view.told).set(sent.uid, sent) });

/** The view after a tombstone was sent. Only the agent's `absent` removes the uid from it. */
export const afterEnd = (view: AgentView, uid: string): AgentView => {
  const told = view.told.get(uid);
  return told ? { ...view, told: new Map(view.told).set(uid, { ...told, ending: true }) } : view;
};

/** The view after a frame of the agent. `pending` collects the parts of a list that is not complete. */
export const afterFrame = (view: AgentView, pending: readonly Held[], message: ToOperator): { view: AgentView; pending: readonly Held[] } => {
  switch (message.type) {
    case 'hello':
      // What it held counts until it has said what it holds: a connection that comes anew makes nobody forget.
      return { view: { is: 'joining', told: view.told }, pending: [] };
    case 'holding': {
      const held = [...pending, ...message.held];
      if (!message.last) return { view, pending: held };
      return { view: { is: 'joined', told: new Map(held.map((each) => [each.uid, each])) }, pending: [] };
    }
    case 'absent': {
      const told = new Map(view.told);
      told.delete(message.uid);
      return { view: { ...view, told }, pending };
    }
    case 'report':
    case 'facts':
    case 'heartbeat':
    case 'renew':
      return { view, pending };
  }
};

/**
 * The protocol version that two sides speak: the highest that both know.
 * Undefined when the ranges do not meet.
 */
export const negotiate = (mine: { min: number; max: number }, theirs: { min: number; max: number }): number | undefined => {
  const highest = Math.min(mine.max, theirs.max);
  return highest >= Math.max(mine.min, theirs.min) ? highest : undefined;
};
