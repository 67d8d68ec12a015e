import { Fault } from '#crds/kit/fault.ts';
import type { DiskSight, ReadyDisk, Seed, Storage } from './driver.ts';
import { sizeOf } from './size.ts';

/** Verbs of a storage that a test can make fail. */
export type StorageVerb = 'observe' | 'create' | 'keep' | 'takeBack' | 'removeKept' | 'grow' | 'drop' | 'drive' | 'insert' | 'tidy' | 'seed' | 'remove' | 'space';

/** What lies on the pretend disk. It outlives the driver, as files outlive an agent. */
export type DiskWorld = Map<string, VmFiles>;

/** Disks that were put aside, by the uid that they are kept under. */
export type KeptWorld = Map<string, { name: string; file: DiskFile; record: string }>;

type DiskFile = { sizeMiB: number; image?: string };

type VmFiles = { disks: Map<string, DiskFile>; media: Map<string, Map<string, number>>; seed?: Seed; unixId: number };

/** A pretend storage with handles for tests. */
export type FakeStorage = Storage & {
  world: DiskWorld;
  kept: KeptWorld;
  /** The next call of `verb` throws this. */
  failNext: (verb: StorageVerb, fault: Fault) => void;
  /** Makes the file of a disk vanish behind everybody's back. */
  lose: (uid: string, name: string) => void;
  /** Sets what `space` says, in MiB. */
  setSpace: (space: { sizeMiB: number; freeMiB: number }) => void;
};

const medium = (name: string, imageUid: string, sizeMiB: number): ReadyDisk => ({ is: 'ready', file: `disks/${name}.${imageUid}.medium`, format: 'qcow2', sizeMiB });

/** A storage in memory. Give the same `world` and `kept` to a second one to play a restart of the agent. */
export const makeFakeStorage = (world: DiskWorld = new Map(), kept: KeptWorld = new Map()): FakeStorage => {
  const faults = new Map<StorageVerb, Fault[]>();
  let space = { sizeMiB: 1024 * 1024, freeMiB: 512 * 1024 };
  const enter = (verb: StorageVerb, signal?: AbortSignal): void => {
    signal?.throwIfAborted();
    const fault = faults.get(verb)?.shift();
    if (fault) throw fault;
  };
  const vm = (uid: string, unixId: number): VmFiles => {
    const found: VmFiles = world.get(uid) ?? { disks: new Map(), media: new Map(), unixId };
    world.set(uid, found);
    return found;
  };
  const see = (uid: string, name: string): DiskSight => {
    const disk = world.get(uid)?.disks.get(name);
    if (!disk) return { is: 'absent' };
    return { is: 'ready', file: `disks/${name}.qcow2`, sizeMiB: disk.sizeMiB, format: 'qcow2', ...(disk.image === undefined ? {} : { base: `disks/${name}.base` }) };
  };
  return {
    observe: async (uid, name, signal) => {
      enter('observe', signal);
      return see(uid, name);
    },
    create: async (disk, signal) => {
      enter('create', signal);
      const seen = see(disk.uid, disk.name);
      if (seen.is === 'ready') return seen;
      const sizeMiB = sizeOf(disk);
      vm(disk.uid, disk.unixId).disks.set(disk.name, { sizeMiB, ...(disk.image ? { image: disk.image.digest } : {}) });
      return see(disk.uid, disk.name);
    },
    grow: async (uid, name, sizeMiB, signal) => {
      enter('grow', signal);
      const disk = world.get(uid)?.disks.get(name);
      if (!disk) throw new Fault('DiskMissing', `disk ${name}: its file is gone from the node`, { retry: 'never' });
      disk.sizeMiB = Math.max(disk.sizeMiB, sizeMiB);
      const seen = see(uid, name);
      if (seen.is === 'absent') throw new Fault('StorageFailed', `disk ${name} vanished`);
      return seen;
    },
    keep: async (place, signal) => {
      enter('keep', signal);
      const [here, there] = [world.get(place.uid)?.disks.get(place.name), kept.get(place.kept)];
      if (here && there) throw new Fault('DiskConflict', `disk ${place.name} is in two places`);
      const file = here ?? there?.file;
      if (!file) return { is: 'absent' };
      kept.set(place.kept, { name: place.name, file, record: place.record });
      world.get(place.uid)?.disks.delete(place.name);
      return { is: 'kept', sizeMiB: file.sizeMiB };
    },
    takeBack: async (place, signal) => {
      enter('takeBack', signal);
      const { disks } = vm(place.uid, place.unixId);
      const [here, there] = [disks.get(place.name), kept.get(place.kept)];
      if (here && there) throw new Fault('DiskConflict', `disk ${place.name} is in two places`);
      if (there) disks.set(place.name, there.file);
      kept.delete(place.kept);
      const seen = see(place.uid, place.name);
      if (seen.is === 'absent') throw new Fault('DiskMissing', `disk ${place.name}: the files that were kept under ${place.kept} are gone from the node`, { retry: 'never' });
      return seen;
    },
    removeKept: async (uid, signal) => {
      enter('removeKept', signal);
      kept.delete(uid);
    },
    drop: async (uid, name, imageUid, signal) => {
      enter('drop', signal);
      world.get(uid)?.disks.delete(name);
      const media = world.get(uid)?.media;
      const kept = [...(media?.get(name) ?? [])].filter(([each]) => each === imageUid);
      if (kept.length === 0) media?.delete(name);
      else media?.set(name, new Map(kept));
    },
    drive: async (uid, name, imageUid, signal) => {
      enter('drive', signal);
      const there = world.get(uid)?.media.get(name) ?? new Map<string, number>();
      const sizeMiB = imageUid === undefined ? undefined : there.get(imageUid);
      return { medium: sizeMiB === undefined || imageUid === undefined ? { is: 'absent' } : medium(name, imageUid, sizeMiB), stale: [...there.keys()].some((each) => each !== imageUid) };
    },
    insert: async ({ uid, name, imageUid, image, unixId }, signal) => {
      enter('insert', signal);
      const { media } = vm(uid, unixId);
      media.set(name, new Map(media.get(name)).set(imageUid, image.virtualSizeMiB));
      return medium(name, imageUid, image.virtualSizeMiB);
    },
    tidy: async (uid, name, imageUid, signal) => {
      enter('tidy', signal);
      const media = world.get(uid)?.media;
      media?.set(name, new Map([...(media.get(name) ?? [])].filter(([each]) => each === imageUid)));
    },
    seed: async (uid, seed, unixId, signal) => {
      enter('seed', signal);
      vm(uid, unixId).seed = seed;
    },
    remove: async (uid, signal) => {
      enter('remove', signal);
      world.delete(uid);
    },
    space: async () => {
      enter('space');
      return space;
    },
    world, kept,
    failNext: (verb, fault) => void faults.set(verb, [...(faults.get(verb) ?? []), fault]),
    lose: (uid, name) => void world.get(uid)?.disks.delete(name),
    setSpace: (next) => {
      space = next;
    },
  };
};
