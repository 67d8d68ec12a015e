import { messageOf } from '#crds/kit/fault.ts';
import { uid as uidForm } from '#crds/wire/desired.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import { type DiskEntry, type Entry, readEntry, writeEntry } from './entry.ts';
import { leaderFile, readLeader } from './leader.ts';
import type { KeptFolder, Shelf, ShelfFile } from './shelf.ts';

/** The name of the ledger file of an object. */
export const fileOf = (uid: string): string => `${uid}.json`;

const uidOf = (file: string): string => file.slice(0, -'.json'.length);

/**
 * What an agent that starts finds in its ledger.
 *
 *   entries, ended   what it remembers; uids of VMs that never return
 *   remains          VMs that have a directory and no entry that can be read, and why
 *   lostDisks        disks that have outlived their VMs and of which it can not be read whose they are: they are given to nobody and stay
 *   put              files that could not be read, by uid
 *   foreignIds       Unix ids of VMs in `remains`
 *   leaderEpoch      the highest that was ever seen
 */
export type Recalled = {
  entries: Map<string, Entry>; ended: Set<string>; remains: Map<string, string>; lostDisks: Map<string, string>;
  put: (NodeFacts['troubles'][number] & { uid: string })[]; foreignIds: ReadonlySet<number>; leaderEpoch: number;
};

/**
 * Reads everything that an agent has written down. What is damaged is put aside; what another build wrote is left alone. Faults: LedgerUnreadable.
 */
export const recall = async (shelf: Shelf): Promise<Recalled> => {
  const content = await shelf.load();
  const found: Recalled = {
    entries: new Map(), ended: new Set(content.ended.filter((uid) => uidForm.safeParse(uid).success)), remains: new Map(), lostDisks: new Map(), put: [], foreignIds: new Set(), leaderEpoch: 0,
  };
  const { entries, ended, remains } = found;
  const directories = new Set(content.vms.map(({ uid }) => uid));
  const keptFolders = new Set(content.kept.map(({ uid }) => uid));
  const quarantined = new Set(content.quarantined);

  for (const file of content.files) {
    const uid = uidOf(file.name);
    const read = readFileOf(file);
    if (read.is === 'leader') found.leaderEpoch = Math.max(found.leaderEpoch, read.leaderEpoch);
    else if (read.is === 'entry' && read.entry.uid === uid) entries.set(uid, read.entry);
    else if (read.is === 'foreign' || read.is === 'unreadable') {
      found.put.push({ uid, reason: 'LedgerUnreadable', message: `ledger file ${file.name}: ${read.why}; it is left alone` });
      if (file.name !== leaderFile) (keptFolders.has(uid) ? found.lostDisks : remains).set(uid, `its ledger file can not be read: ${read.why}`);
    } else {
      const refused = await shelf.quarantine(file.name).then(() => undefined, messageOf);
      const aside = refused === undefined ? 'was put into quarantine/' : `could not be put aside: ${refused}`;
      if (refused === undefined) quarantined.add(file.name);
      if (file.name !== leaderFile && directories.has(uid)) remains.set(uid, `its ledger file is damaged and ${aside}`);
      if (refused !== undefined && keptFolders.has(uid)) found.lostDisks.set(uid, `its ledger file is damaged and ${aside}`);
      found.put.push({ uid, reason: 'LedgerQuarantined', message: `ledger file ${file.name} is damaged (${read.is === 'bad' ? read.why : 'it is of another uid'}) and ${aside}` });
    }
  }
  // A crash came after the end was recorded and before the entry went. Where nothing can be written it goes at a later start.
  // Earlier builds recorded the end of images too; one that has been wanted since is wanted.
  for (const uid of ended) if (entries.get(uid)?.kind === 'vm' && entries.delete(uid)) await shelf.remove(fileOf(uid)).catch(() => {});
  for (const { uid } of content.vms) {
    if (entries.has(uid) || ended.has(uid) || remains.has(uid)) continue;
    remains.set(uid, quarantined.has(fileOf(uid)) ? 'its ledger file is in quarantine/' : 'it has a directory on the node and no ledger file');
  }
  for (const folder of content.kept) {
    const { uid } = folder;
    if (entries.has(uid) || found.lostDisks.has(uid)) continue;
    const again = ownedBy(folder);
    const kept = again && (await shelf.write(fileOf(uid), writeEntry(again)).then(() => true, () => false));
    if (again && kept) entries.set(uid, again);
    else found.lostDisks.set(uid, quarantined.has(fileOf(uid)) ? 'its ledger file is in quarantine/' : 'it has no readable ledger file');
  }
  const foreignIds = new Set(content.vms.flatMap(({ uid, unixId }) => (remains.has(uid) ? (unixId ?? []) : [])));
  return { ...found, foreignIds, leaderEpoch: Math.max(found.leaderEpoch, ...[...entries.values()].map(({ order }) => order.leaderEpoch)) };
};

const readFileOf = (file: ShelfFile) => {
  if ('unreadable' in file) return { is: 'unreadable' as const, why: file.unreadable };
  return file.name === leaderFile ? readLeader(file.text) : readEntry(file.text);
};

/** The entry of a kept disk by what was written beside its files when it was kept: only when that speaks of this folder, and of a file that is in it. */
const ownedBy = ({ uid, files, record }: KeptFolder): DiskEntry | undefined => {
  const read = record === undefined ? undefined : readEntry(record);
  return read?.is === 'entry' && read.entry.kind === 'disk' && read.entry.uid === uid && files.includes(`${read.entry.owner.disk}.qcow2`) ? read.entry : undefined;
};
