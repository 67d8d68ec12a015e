import type { KeptDisk } from '#crds/wire/kept.ts';
import type { Doomed, Held } from '#crds/wire/messages.ts';
import type { NodeFacts, ObservedImage, ObservedVm } from '#crds/wire/observed.ts';
import type { Fleet, Member } from './fleet.ts';

/** Takes what the agent of one node says into what we know of that node, and wakes whom it concerns. */
export type Hearing = {
  /** Whether it is for this node to say anything of a uid: it holds it, or it was told of it. */
  concerns: (uid: string) => boolean;
  /** A list of what it holds is complete. `first`: of this connection; `before`: what it was known to hold. */
  listed: (first: boolean, before: ReadonlyMap<string, Held>) => void;
  report: (observed: ObservedVm | ObservedImage) => void;
  /** `kept`: the disks of a VM that have outlived it. */
  absent: (uid: string, kind: Doomed, kept?: readonly KeptDisk[]) => void;
  facts: (facts: NodeFacts) => void;
};

/** The hearing of one node. It concludes nothing from what is not said, but from a list that is complete. */
export const makeHearing = (fleet: Fleet, node: string): Hearing => {
  const member = (): Member => fleet.member(node);
  const concerns = (uid: string): boolean => {
    const it = member();
    return it.view.told.has(uid) || it.wanted.has(uid) || it.doomed.has(uid);
  };
  /** What waited for its name or its room may go on. */
  const tellOfEnd = (uid: string, kind: Doomed): void => fleet.tellListeners((listener) => {
    if (kind === 'vm') listener.vm({ uid });
    else if (kind === 'image') listener.image(uid);
    listener.node(node);
  });
  const ended = (uid: string, kind: Doomed): void => {
    const it = member();
    it.doomed.delete(uid);
    it.absent.add(uid);
    it.vms.delete(uid);
    it.images.delete(uid);
    tellOfEnd(uid, kind);
  };

  return {
    concerns,
    listed: (first, before) => {
      const it = member();
      const holds = it.view.told;
      it.listed = true;
      if (first) it.awaited = new Set([...holds.values()].flatMap(({ kind, uid }) => (kind === 'vm' ? [uid] : [])));
      // Only the first list of a connection shows what is gone: a later one may be older than reports that came since.
      for (const reports of [it.vms, it.images]) {
        for (const uid of reports.keys()) if (first ? !holds.has(uid) : !concerns(uid)) reports.delete(uid);
      }
      // An agent that keeps disks is asked: with the end of a VM it says which ones have outlived it, and a kept disk is in no list.
      const answers = it.facts?.keptDisks !== undefined;
      if (first) for (const [uid, kind] of it.doomed) if (!holds.has(uid) && (kind === 'image' || !answers)) ended(uid, kind);
      it.session?.wake();
      fleet.tellListeners((listener) => {
        listener.node(node);
        for (const held of holds.values()) if (held.kind === 'vm') listener.vm(held);
        for (const uid of it.wanted.keys()) listener.vm({ uid });
        for (const { uid, kind } of before.values()) if (kind === 'vm' && !holds.has(uid)) listener.vm({ uid });
      });
    },
    report: (observed) => {
      const { vms, images, view, awaited } = member();
      awaited.delete(observed.uid);
      if (observed.kind === 'vm') {
        vms.set(observed.uid, observed);
        fleet.tellListeners((listener) => listener.vm(view.told.get(observed.uid) ?? { uid: observed.uid }));
      } else {
        images.set(observed.uid, observed);
        fleet.tellListeners((listener) => listener.image(observed.uid));
      }
    },
    absent: (uid, kind, kept) => {
      const it = member();
      it.awaited.delete(uid);
      if (kind === 'vm' && kept && kept.length > 0) it.keptOf.set(uid, kept);
      // Forgotten at once: the node's facts, which still list this disk, are renewed only later.
      if (kind === 'disk' && it.facts?.keptDisks) it.facts = { ...it.facts, keptDisks: it.facts.keptDisks.filter((each) => each.uid !== uid) };
      if (it.doomed.has(uid)) return ended(uid, kind);
      // A copy of an image is only a cache: when it is gone and still wanted, the node is told again.
      if (kind === 'vm' && it.wanted.has(uid)) it.endedForEver.add(uid);
      tellOfEnd(uid, kind);
    },
    facts: (facts) => {
      const it = member();
      it.facts = facts;
      // New facts list all kept disks, so those that were told with the end of a VM need no memory of their own any more.
      it.keptOf.clear();
      fleet.tellListeners((listener) => listener.node(node));
    },
  };
};
