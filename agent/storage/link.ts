import { constants } from 'node:fs';
import { chown, copyFile, link, open, rename, rm } from 'node:fs/promises';
import { errnoOf } from './durable.ts';

/** Hears when an image had to be copied. */
export type LinkLog = { warn: (fields: object, sentence: string) => void };

const rootId = (): number => process.getuid?.() ?? 0;

/**
 * Gives a VM an image under a name in its own directory. What a half-made attempt left behind is replaced. Who calls makes the name
 * durable. Without hard links (another file system) it is copied.
 */
export const linkImage = async (image: string, target: string, log: LinkLog): Promise<void> => {
  const attempt = `${target}.new`;
  await rm(attempt, { force: true });
  try {
    await link(image, attempt);
  } catch (thrown) {
    const code = errnoOf(thrown);
    if (code !== 'EXDEV' && code !== 'EMLINK' && code !== 'EPERM') throw thrown;
    log.warn({ image, target, code }, 'the image can not be linked into the directory of the VM: it is copied, which takes time and space');
    await copyFile(image, attempt, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    await chown(attempt, rootId(), rootId());
    const handle = await open(attempt, constants.O_RDONLY);
    try {
      await handle.chmod(0o444);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
  // rename does nothing when both names are links to one file, so the older name goes first.
  await rm(target, { force: true });
  await rename(attempt, target);
};
