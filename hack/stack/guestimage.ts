import { copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { EnsureGuest } from '../guest/guest.ts';
import { tellProgress } from './report.ts';

/**
 * Puts the disk of a guest where the image server finds it. A stack keeps the image that it began with: the digest of an image
 * is fixed by its first import, and a new kernel of the distribution would make another one. `--purge` ends that.
 */
export const ensureGuestImage = async (file: string, ensure: EnsureGuest, tell: (doing: string) => void, signal: AbortSignal): Promise<'new' | 'kept'> => {
  if ((await stat(file).catch(() => undefined)) !== undefined) return 'kept';
  const { disk } = await ensure(tellProgress(tell), signal);
  await mkdir(dirname(file), { recursive: true });
  const fresh = `${file}.new`;
  await rm(fresh, { force: true });
  await copyFile(disk, fresh);
  await rename(fresh, file);
  return 'new';
};
