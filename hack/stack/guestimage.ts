import { copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ensureGuest } from '../guest/guest.ts';
import type { Layout } from './layout.ts';
import { tellProgress } from './report.ts';

/**
 * Puts the guest's disk where the image server finds it. A stack keeps the image that it began with: the digest of an image
 * is fixed by its first import, and a new kernel of the distribution would make another one. `--purge` ends that.
 */
export const ensureGuestImage = async (at: Layout, tell: (doing: string) => void, signal: AbortSignal): Promise<'new' | 'kept'> => {
  if ((await stat(at.guestImage).catch(() => undefined)) !== undefined) return 'kept';
  const { disk } = await ensureGuest(tellProgress(tell), signal);
  await mkdir(dirname(at.guestImage), { recursive: true });
  const fresh = `${at.guestImage}.new`;
  await rm(fresh, { force: true });
  await copyFile(disk, fresh);
  await rename(fresh, at.guestImage);
  return 'new';
};
