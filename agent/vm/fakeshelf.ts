import { Fault } from '#crds/kit/fault.ts';
import type { KeptFolder, Shelf, ShelfFile } from './shelf.ts';

/** What lies on a pretend node. It outlives the shelf, as files outlive an agent. */
export type ShelfWorld = {
  files: Map<string, string>;
  ended: Set<string>;
  quarantined: Set<string>;
  /** Files that can not be read at all, and why. */
  unreadable: Map<string, string>;
  /** The VM directories of the node; give it the keys of a pretend storage. */
  vms: () => readonly { uid: string; unixId: number | undefined }[];
  /** The folders of kept disks that have files; give it those of a pretend storage. */
  kept: () => readonly KeptFolder[];
  /** While true no file can be written, unless `ballast` is there to be dropped. */
  full: boolean;
  ballast: boolean;
  /** Set to make every write fail so. */
  failing?: 'LedgerReadOnly' | 'LedgerFailed';
  /** Set to make every write wait for it. */
  hangs?: Promise<void>;
  /** Set to make `load` fail. */
  broken?: string;
  writes: number;
};

/** An empty pretend node. */
export const shelfWorld = (vms: ShelfWorld['vms'] = () => [], kept: ShelfWorld['kept'] = () => []): ShelfWorld => ({
  files: new Map(), ended: new Set(), quarantined: new Set(), unreadable: new Map(), vms, kept, full: false, ballast: false, writes: 0,
});

/** A ledger's files in memory, for tests and for simulated agents. */
export const makeFakeShelf = (world: ShelfWorld = shelfWorld()): Shelf => {
  const room = async (doing: string): Promise<void> => {
    await world.hangs;
    if (world.failing !== undefined) throw new Fault(world.failing, `${doing}: the disk can not be written`);
    if (world.full) throw new Fault('LedgerFull', `${doing}: no space is left for the agent's ledger`);
  };
  return {
    load: async () => {
      if (world.broken !== undefined) throw new Fault('LedgerUnreadable', world.broken, { retry: 'never' });
      const readable: ShelfFile[] = [...world.files].filter(([name]) => !world.unreadable.has(name)).map(([name, text]) => ({ name, text }));
      const unreadable: ShelfFile[] = [...world.unreadable].map(([name, why]) => ({ name, unreadable: why }));
      return { files: [...readable, ...unreadable], ended: [...world.ended], quarantined: [...world.quarantined], vms: world.vms(), kept: world.kept() };
    },
    write: async (name, text) => {
      await room(`writing ${name}`);
      world.writes += 1;
      world.files.set(name, text);
    },
    probe: () => room('probing'),
    remove: async (name) => {
      if (world.failing !== undefined) throw new Fault(world.failing, `removing ${name}: the disk can not be written`);
      world.files.delete(name);
    },
    quarantine: async (name) => {
      if (world.failing !== undefined) throw new Fault(world.failing, `putting ${name} aside: the disk can not be written`);
      world.files.delete(name);
      world.quarantined.add(name);
    },
    end: async (uid) => {
      await room(`recording the end of ${uid}`);
      world.ended.add(uid);
    },
    ballast: {
      keep: async () => {
        world.ballast = world.ballast || !world.full;
        return world.ballast;
      },
      drop: async () => {
        const there = world.ballast;
        world.ballast = false;
        // What was dropped is room for a while; a test fills it again by hand.
        if (there) world.full = false;
        return there;
      },
    },
  };
};
