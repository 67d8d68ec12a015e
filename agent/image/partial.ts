import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errnoOf } from '../storage/durable.ts';
import { seal, unseal } from './sealed.ts';

const origin = z.strictObject({
  /** Of the source, before any redirect. */
  url: z.string(),
  /** A strong validator (an ETag, or a date): only with it a server can tell whether the rest still belongs to these bytes. */
  validator: z.string().optional(),
  totalBytes: z.int().min(0).optional(),
});
const sidecar = z.strictObject({ origin, bootId: z.string() });

/** Where the bytes of a partial download come from. Source of the validator: RFC 9110, 8.8. */
export type Origin = z.output<typeof origin>;

/** A download that may be unfinished: a file, and beside it where its bytes come from. Nobody else uses its directory meanwhile. */
export type Partial = AsyncDisposable & {
  path: string;
  file: FileHandle;
  /** What an earlier attempt left that can be gone on with; undefined when there is nothing. */
  found: { origin: Origin; receivedBytes: number } | undefined;
  /** Empties the file and says where its bytes will come from. */
  begin: (from: Origin) => Promise<void>;
  /** Says more of where its bytes come from; they stay. */
  note: (from: Origin) => Promise<void>;
};

/**
 * Opens the partial download in a directory, which is made when it is not there. What was written under another boot of the
 * node is not taken up again: the end of a file that was never synced may be missing or zero after a power cut. A process
 * that was killed leaves a file whose bytes are all right, up to its length.
 */
export const openPartial = async (directory: string, bootId: string): Promise<Partial> => {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, 'fetched');
  const beside = join(directory, 'origin.json');
  const file = await open(path, constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW, 0o600);
  const note = async (from: Origin): Promise<void> => {
    await writeFile(`${beside}.new`, seal({ origin: from, bootId }), { mode: 0o600 });
    await rename(`${beside}.new`, beside);
  };
  try {
    const known = unseal(await textOf(beside), sidecar);
    const { size } = await file.stat();
    const partial: Partial = {
      path, file, note,
      found: known?.bootId === bootId && size > 0 ? { origin: known.origin, receivedBytes: size } : undefined,
      begin: async (from) => {
        partial.found = undefined;
        // In this order, so that a crash never leaves bytes from one source beside the name of another.
        await rm(beside, { force: true });
        await file.truncate(0);
        await note(from);
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
    return partial;
  } catch (thrown) {
    await file.close();
    throw thrown;
  }
};

const textOf = async (file: string): Promise<string> =>
  readFile(file, 'utf8').catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return '';
    throw thrown;
  });
