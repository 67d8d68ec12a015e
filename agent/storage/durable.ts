import { constants } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Makes the names in a directory survive a power cut: fsync of a file does not cover its name. */
export const syncDirectory = async (directory: string): Promise<void> => {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

/** Who may do what with a new file. */
export type Ownership = { mode: number; uid: number; gid: number };

/**
 * Makes a file that is either whole or not there, even after a power cut: a temporary name beside it, fsync, rename,
 * and fsync of the directory. Replaces an older one. `file.new` must be nobody else's at the same time.
 */
export const writeWhole = async (file: string, owner: Ownership, fill: (handle: FileHandle) => Promise<void>): Promise<void> => {
  const temporary = `${file}.new`;
  await rm(temporary, { force: true });
  // Exclusive creation follows no link that somebody might have put there.
  const handle = await open(temporary, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW, 0o600);
  try {
    await fill(handle);
    await handle.chown(owner.uid, owner.gid);
    await handle.chmod(owner.mode);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
  await syncDirectory(dirname(file));
};

/** The code of a system error (`ENOENT`), or undefined. */
export const errnoOf = (thrown: unknown): string | undefined =>
  Error.isError(thrown) && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : undefined;
