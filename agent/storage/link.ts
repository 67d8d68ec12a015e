import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { chown, copyFile, link, lstat, open, rename, rm } from 'node:fs/promises';
import { errnoOf } from './durable.ts';

/** Hears when an image had to be copied. */
export type LinkLog = { warn: (fields: object, sentence: string) => void };

const rootId = (): number => process.getuid?.() ?? 0;

/**
 * Gives a VM an image under a name in its own directory. A link to the image that is there already stays; any other file, what a
 * half-made attempt left behind, is replaced, unless it is used by now. Who calls makes the name durable. Without hard links (another file
 * system) it is copied.
 */
export const linkImage = async (image: string, target: string, isUsed: () => Promise<boolean>, log: LinkLog): Promise<void> => {
  if (await linked(image, target)) return;
  const attempt = `${target}.${randomUUID()}.new`;
  try {
    await link(image, attempt).catch(async (thrown: unknown) => {
      const code = errnoOf(thrown);
      if (code !== 'EXDEV' && code !== 'EMLINK' && code !== 'EPERM') throw thrown;
      log.warn({ image, target, code }, 'the image can not be linked into the directory of the VM: it is copied, which takes time and space');
      await copyWhole(image, attempt);
    });
    // An agent that was frozen before this, and goes on after another one took over, takes no disk its base away.
    if (!(await isUsed())) await rename(attempt, target);
  } finally {
    // rename(2) does nothing when both names are links to one file.
    await rm(attempt, { force: true });
  }
};

/** Whether the name is a link to the image now; false when another file has it, or no link can be made. */
const linked = async (image: string, target: string): Promise<boolean> => {
  try {
    await link(image, target);
    return true;
  } catch (thrown) {
    if (errnoOf(thrown) !== 'EEXIST') return false;
    const [mine, there] = [await lstat(image), await lstat(target)];
    return mine.ino === there.ino && mine.dev === there.dev;
  }
};

const copyWhole = async (image: string, copy: string): Promise<void> => {
  await copyFile(image, copy, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  await chown(copy, rootId(), rootId());
  const handle = await open(copy, constants.O_RDONLY);
  try {
    await handle.chmod(0o444);
    await handle.sync();
  } finally {
    await handle.close();
  }
};
