import { asFault, Fault } from '#crds/kit/fault.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import type { Partial } from './partial.ts';
import { fetchChecksum } from './web/checksums.ts';
import { type Fetched, type FetchLimits, fetchTo, type Hashed } from './web/fetch.ts';
import type { Guard } from './web/guard.ts';

/** What fetching works with. */
export type ObtainKit = { guard: Guard; limits: FetchLimits; freeBytes: () => Promise<number> };

/** What is wanted (asked again once the bytes are there: it may have been pinned meanwhile), and who hears how much of it is there, in percent. */
export type ObtainTask = { desire: () => DesiredImage; progress: (percent: number) => void };

/** The checksum that an image's bytes must have, read from a list if need be; of pinned bytes the list says nothing more. Faults: those of `fetchChecksum`. */
export const expectedSum = async ({ guard, limits }: ObtainKit, desire: DesiredImage, signal: AbortSignal): Promise<string | undefined> =>
  desire.checksumUrl === undefined || desire.digest !== undefined ? desire.checksum : fetchChecksum(desire.checksumUrl, desire.url, guard, limits, signal);

/**
 * Brings the bytes that an image asks for into a partial download, from the first of its sources that gives them; one from which
 * a part is there already comes first. Faults: NoSpace, and when every source failed its fault; of several sources all are
 * told, and it is for ever only if it is for each: those of `fetchTo`, ChecksumMismatch, DigestMismatch (for ever).
 */
export const obtain = async (kit: ObtainKit, task: ObtainTask, expected: string | undefined, partial: Partial, signal: AbortSignal): Promise<Hashed> => {
  const { url, mirrors = [] } = task.desire();
  const begun = partial.found?.origin.url;
  const faults: Fault[] = [];
  for (const source of [url, ...mirrors].toSorted((a, b) => Number(b === begun) - Number(a === begun))) {
    try {
      return await fetchRight(kit, task, source, expected, partial, signal);
    } catch (thrown) {
      signal.throwIfAborted();
      const fault = asFault(thrown, 'DownloadFailed', 'fetching the image');
      if (fault.code === 'NoSpace') throw fault;
      faults.push(fault);
    }
  }
  throw together(faults);
};

const together = (faults: readonly Fault[]): Fault => {
  const [first, ...others] = faults;
  const worst = faults.find(({ retry }) => retry === 'later') ?? first;
  if (!worst || others.length === 0) return worst ?? new Fault('DownloadFailed', 'the image has no source');
  const told = faults.map(({ message }, at) => `${at + 1}. ${message}`).join('; ');
  return new Fault(worst.code, `none of the ${faults.length} sources gives the image: ${told}`, { cause: worst, retry: worst.retry });
};

/** Fetches from one source. Wrong bytes that arrived in several parts may have been joined wrongly: they are fetched anew, once. */
const fetchRight = async (kit: ObtainKit, task: ObtainTask, url: string, expected: string | undefined, partial: Partial, signal: AbortSignal): Promise<Hashed> => {
  const fetching = {
    ...kit, url, sha512: expected?.startsWith('sha512:') ?? false,
    progress: (received: number, total: number | undefined) => task.progress(total === undefined || total === 0 ? 0 : Math.floor((received / total) * 100)),
  };
  const fetched = await fetchTo({ ...fetching, partial }, signal);
  try {
    compare(task.desire(), expected, fetched);
    return hashedOf(fetched);
  } catch (thrown) {
    if (!fetched.resumed) throw thrown;
    const again = await fetchTo({ ...fetching, partial: { ...partial, found: undefined } }, signal);
    compare(task.desire(), expected, again);
    return hashedOf(again);
  }
};

const hashedOf = ({ sizeBytes, sha256, sha512 }: Fetched): Hashed => ({ sizeBytes, sha256, ...(sha512 === undefined ? {} : { sha512 }) });

const compare = ({ digest: pinned }: DesiredImage, expected: string | undefined, got: Hashed): void => {
  const digest = `sha256:${got.sha256}`;
  const sum = expected?.startsWith('sha512:') ? `sha512:${got.sha512 ?? ''}` : digest;
  if (expected !== undefined && expected !== sum) {
    throw new Fault('ChecksumMismatch', `the fetched bytes hash to ${sum}, but ${expected} is expected; correct the checksum or the source in a new image`, { retry: 'never' });
  }
  if (pinned !== undefined && pinned !== digest) {
    throw new Fault('DigestMismatch', `the source now serves ${digest}, but this image was first imported as ${pinned}; create another image for the new content`, { retry: 'never' });
  }
};
