import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, lstat, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

// By directory: the sync that is under way, and the one that follows it.
const underWay = new Map<string, Promise<void>>();
const next = new Map<string, Promise<void>>();

/**
 * Makes the names in a directory survive a power cut: fsync of a file does not cover its name. Those who come while it is under way
 * wait for one more together: where many files come to one directory, the disk is not asked for each.
 */
export const syncDirectory = (directory: string): Promise<void> => {
  const now = underWay.get(directory);
  if (!now) return begin(directory);
  const then = () => {
    next.delete(directory);
    return begin(directory);
  };
  const later = next.get(directory) ?? now.then(then, then);
  next.set(directory, later);
  return later;
};

const begin = (directory: string): Promise<void> => {
  const mine = syncNow(directory).finally(() => { if (underWay.get(directory) === mine) underWay.delete(directory); });
  underWay.set(directory, mine);
  return mine;
};

const syncNow = async (directory: string): Promise<void> => {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

/** Whether something lies under a path, whatever it is. What can not be looked at is a fault, never absent. */
export const isThere = (path: string): Promise<boolean> => lstat(path).then(() => true, (thrown: unknown) => {
  if (errnoOf(thrown) === 'ENOENT') return false;
  throw thrown;
});

/** Who may do what with a new file. */
export type Ownership = { mode: number; uid: number; gid: number };

/**
 * Makes a file that is either whole or not there, even after a power cut: a temporary name beside it, fsync, rename,
 * and fsync of the directory. Replaces an older one. `file.new` must be nobody else's at the same time.
 */
export const writeWhole = async (file: string, owner: Ownership, fill: (handle: FileHandle) => Promise<void>): Promise<void> => {
  const temporary = `${file}.new`;
  const handle = await openNew(temporary).catch(async (thrown: unknown) => {
    if (errnoOf(thrown) !== 'EEXIST') throw thrown;
    // A crash left it.
    await rm(temporary);
    return openNew(temporary);
  });
  await fillNew(handle, owner, fill);
  await rename(temporary, file);
  await syncDirectory(dirname(file));
};

/**
 * Makes a file that was never there, as `writeWhole` does, and replaces nothing: false when meanwhile another has come to the name, or
 * somebody took the attempt away. So an agent that was frozen in the middle of it, and goes on after another one took over,
 * harms nothing that was made since. A crash leaves `file.ID.new`, an attempt that nobody takes for his own.
 */
export const makeWhole = async (file: string, owner: Ownership, fill: (handle: FileHandle) => Promise<void>): Promise<boolean> => {
  const attempt = `${file}.${randomUUID()}.new`;
  let made = false;
  try {
    await fillNew(await openNew(attempt), owner, fill);
    // Unlike rename(2), link(2) fails when the name is taken.
    made = await link(attempt, file).then(() => true, (thrown: unknown) => {
      if (errnoOf(thrown) !== 'EEXIST' && errnoOf(thrown) !== 'ENOENT') throw thrown;
      return false;
    });
  } finally {
    await rm(attempt, { force: true });
  }
  await syncDirectory(dirname(file));
  return made;
};

// Exclusive creation follows no link that somebody might have put there.
const openNew = (file: string): Promise<FileHandle> => open(file, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW, privateMode);

const privateMode = 0o600;

const fillNew = async (handle: FileHandle, { uid, gid, mode }: Ownership, fill: (handle: FileHandle) => Promise<void>): Promise<void> => {
  try {
    await fill(handle);
    if (uid !== process.getuid?.() || gid !== process.getgid?.()) await handle.chown(uid, gid);
    if (mode !== privateMode) await handle.chmod(mode);
    await handle.sync();
  } finally {
    await handle.close();
  }
};

/** The code of a system error (`ENOENT`), or undefined. */
export const errnoOf = (thrown: unknown): string | undefined =>
  Error.isError(thrown) && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : undefined;
