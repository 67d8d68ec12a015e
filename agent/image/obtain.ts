import { Fault } from '#crds/kit/fault.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import type { Partial } from './partial.ts';
import { type Fetched, type FetchLimits, fetchTo, type Hashed } from './web/fetch.ts';
import type { Guard } from './web/guard.ts';

/** What fetching works with. */
export type ObtainKit = { guard: Guard; limits: FetchLimits; freeBytes: () => Promise<number> };

/** What is wanted (asked again once the bytes are there: it may have been pinned meanwhile), and who hears how much of it is there, in percent. */
export type ObtainTask = { desire: () => DesiredImage; progress: (percent: number) => void };

/**
 * Brings the bytes that an image asks for into a partial download. Wrong ones that arrived in several parts may have been
 * joined wrongly: they are fetched anew, once. Faults: those of `fetchTo`, and ChecksumMismatch, DigestMismatch (for ever).
 */
export const obtain = async (kit: ObtainKit, task: ObtainTask, partial: Partial, signal: AbortSignal): Promise<Hashed> => {
  const desire = task.desire();
  const fetching = {
    ...kit, url: desire.url, sha512: desire.checksum?.startsWith('sha512:') ?? false,
    progress: (received: number, total: number | undefined) => task.progress(total === undefined || total === 0 ? 0 : Math.floor((received / total) * 100)),
  };
  const fetched = await fetchTo({ ...fetching, partial }, signal);
  try {
    compare(task.desire(), fetched);
    return hashedOf(fetched);
  } catch (thrown) {
    if (!fetched.resumed) throw thrown;
    const again = await fetchTo({ ...fetching, partial: { ...partial, found: undefined } }, signal);
    compare(task.desire(), again);
    return hashedOf(again);
  }
};

const hashedOf = ({ sizeBytes, sha256, sha512 }: Fetched): Hashed => ({ sizeBytes, sha256, ...(sha512 === undefined ? {} : { sha512 }) });

const compare = (desire: DesiredImage, got: Hashed): void => {
  const digest = `sha256:${got.sha256}`;
  const sum = desire.checksum?.startsWith('sha512:') ? `sha512:${got.sha512 ?? ''}` : digest;
  if (desire.checksum !== undefined && desire.checksum !== sum) {
    throw new Fault('ChecksumMismatch', `the fetched bytes hash to ${sum}, but ${desire.checksum} is expected; correct the checksum or the source in a new image`, { retry: 'never' });
  }
  if (desire.digest !== undefined && desire.digest !== digest) {
    throw new Fault('DigestMismatch', `the source now serves ${digest}, but this image was first imported as ${desire.digest}; create another image for the new content`, { retry: 'never' });
  }
};
