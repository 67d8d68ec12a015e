import { constants } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { uid as uidForm } from '#crds/wire/desired.ts';
import type { Paths } from '../host/paths.ts';
import { errnoOf, syncDirectory, writeWhole } from '../storage/durable.ts';

/** One file of a shelf: its text, or why it could not be read. */
export type ShelfFile = { name: string } & ({ text: string } | { unreadable: string });

/** The folder of a kept disk: the names of its files, and what was written beside them when it was kept. */
export type KeptFolder = { uid: string; files: readonly string[]; record?: string };

/** What lies on a node when its agent starts. `vms`: every VM directory, with the Unix id that owns it; `kept`: every folder of a kept disk that has files. */
export type ShelfContent = {
  files: readonly ShelfFile[];
  ended: readonly string[];
  quarantined: readonly string[];
  vms: readonly { uid: string; unixId: number | undefined }[];
  kept: readonly KeptFolder[];
};

/** Where the ledger's files lie. What a verb has returned from survives a power cut. */
export type Shelf = {
  /** Faults: LedgerUnreadable, when a folder can not be listed: unknown is not empty. */
  load: () => Promise<ShelfContent>;
  /** Writes one file whole. Faults: LedgerFull (no space), LedgerReadOnly, LedgerFailed. */
  write: (name: string, text: string) => Promise<void>;
  /** Writes something to the disk and takes it away again. Faults as `write`. */
  probe: () => Promise<void>;
  remove: (name: string) => Promise<void>;
  /** Moves a damaged file away, to be looked at by a person. */
  quarantine: (name: string) => Promise<void>;
  /** Records that the uid of a VM has ended for ever. */
  end: (uid: string) => Promise<void>;
  /** Space that is kept for what must be written on a full disk. Both say whether it is there now. */
  ballast: { keep: () => Promise<boolean>; drop: () => Promise<boolean> };
};

const ballastBytes = 8 * 1024 * 1024;
// One block of the file system: what the file of an entry takes at least.
const probeBytes = 4096;
const recordBytes = 64 * 1024;
const rootOnly = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

/** The ledger on disk. `fresh` says that this node was never used; else a missing folder is a fault, not an empty one. */
export const makeFileShelf = (paths: Paths, fresh: boolean): Shelf => ({
  load: async () => {
    if (fresh) for (const folder of [paths.ledger, paths.ended, paths.quarantine, paths.vms]) await mkdir(folder, { recursive: true, mode: folder === paths.vms ? 0o711 : 0o700 });
    const names = await list(paths.ledger);
    const files: ShelfFile[] = [];
    for (const name of names.filter((each) => each.endsWith('.json'))) {
      files.push(await readFile(join(paths.ledger, name), 'utf8').then(
        (text) => ({ name, text }),
        (thrown: unknown) => ({ name, unreadable: messageOf(thrown) }),
      ));
    }
    const vms: { uid: string; unixId: number | undefined }[] = [];
    for (const uid of (await list(paths.vms)).filter((name) => uidForm.safeParse(name).success)) {
      vms.push({ uid, unixId: await stat(paths.vm(uid)).then(({ gid }) => gid, () => undefined) });
    }
    return { files, ended: await list(paths.ended), quarantined: await list(paths.quarantine), vms, kept: await keptFolders(paths) };
  },
  write: (name, text) => guarded(`writing ${name}`, () => writeWhole(join(paths.ledger, name), rootOnly, (handle) => handle.writeFile(text))),
  probe: () => guarded('trying whether the state folder can be written', async () => {
    await writeWhole(paths.probe, rootOnly, (handle) => handle.writeFile(Buffer.alloc(probeBytes, 0xb5)));
    await rm(paths.probe, { force: true });
  }),
  remove: (name) => guarded(`removing ${name}`, async () => {
    await rm(join(paths.ledger, name), { force: true });
    await syncDirectory(paths.ledger);
  }),
  quarantine: (name) => guarded(`putting ${name} aside`, async () => {
    await rename(join(paths.ledger, name), join(paths.quarantine, name));
    await syncDirectory(paths.quarantine);
    await syncDirectory(paths.ledger);
  }),
  end: (uid) => guarded(`recording the end of ${uid}`, () => writeWhole(join(paths.ended, uid), rootOnly, async () => {})),
  ballast: {
    keep: async () => {
      const there = await stat(paths.ballast).then(({ size }) => size >= ballastBytes, () => false);
      if (there) return true;
      // Written, not only allocated: a sparse file keeps nothing.
      const made = await writeWhole(paths.ballast, rootOnly, (handle) => handle.writeFile(Buffer.alloc(ballastBytes, 0xb5))).then(() => true, () => false);
      if (!made) await rm(`${paths.ballast}.new`, { force: true });
      return made;
    },
    drop: async () => {
      const there = await stat(paths.ballast).then(() => true, () => false);
      if (there) await rm(paths.ballast, { force: true });
      return there;
    },
  },
});

/** Whether an agent has ever used this folder: the identity is the last thing that a first start writes. */
export const readAgentId = async (paths: Paths): Promise<string | undefined> => {
  try {
    const text = (await readFile(paths.agentId, 'utf8')).trim();
    if (!uidForm.safeParse(text).success) throw new Fault('LedgerUnreadable', `${paths.agentId} does not hold an agent id; restore it, or empty the state folder to begin anew`, { retry: 'never' });
    return text;
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
};

/** Writes the identity of a new agent. */
export const writeAgentId = async (paths: Paths, id: string): Promise<void> => {
  await writeWhole(paths.agentId, rootOnly, (handle) => handle.writeFile(`${id}\n`));
};

/** Uids of kept disks that have files. The folder `kept/` does not exist before the first disk is kept. */
const keptFolders = async (paths: Paths): Promise<KeptFolder[]> => {
  const there = await stat(paths.kept).then(() => true, (thrown: unknown) => errnoOf(thrown) !== 'ENOENT');
  if (!there) return [];
  const found: KeptFolder[] = [];
  for (const uid of (await list(paths.kept)).filter((name) => uidForm.safeParse(name).success)) {
    const [files, record] = [await list(join(paths.kept, uid)), await readOwn(paths.keptRecord(uid))];
    if (files.length > 0) found.push({ uid, files, ...(record === undefined ? {} : { record }) });
  }
  return found;
};

/** The text of a file that nobody else can have written; undefined when there is none. */
const readOwn = async (file: string): Promise<string | undefined> => {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(() => undefined);
  try {
    const about = await handle?.stat();
    return about?.isFile() && about.uid === rootOnly.uid && (about.mode & 0o022) === 0 && about.size <= recordBytes ? await handle?.readFile('utf8') : undefined;
  } catch {
    return undefined;
  } finally {
    await handle?.close();
  }
};

const list = async (folder: string): Promise<string[]> => {
  try {
    return await readdir(folder);
  } catch (cause) {
    throw new Fault('LedgerUnreadable', `${folder} can not be listed: ${messageOf(cause)}; the agent does not start, since it can not know what runs here`, { cause, retry: 'never' });
  }
};

const guarded = async (doing: string, job: () => Promise<void>): Promise<void> => {
  try {
    await job();
  } catch (cause) {
    const code = errnoOf(cause);
    if (code === 'EROFS') throw new Fault('LedgerReadOnly', `${doing}: the file system of the agent's state folder is read-only`, { cause });
    if (code === 'ENOSPC' || code === 'EDQUOT') throw new Fault('LedgerFull', `${doing}: no space is left for the agent's ledger`, { cause });
    throw new Fault('LedgerFailed', `${doing}: ${messageOf(cause)}`, { cause });
  }
};
