import type { IncomingHttpHeaders } from 'node:http';
import type { Origin } from '../partial.ts';

/** What a response says of the whole that it is, or is a part of. */
export type Answered = { status: number; headers: IncomingHttpHeaders };

/**
 * What makes sure that a later part belongs to the same whole: a strong ETag, or the date of the last change when it is old
 * enough to be one (a second before the answer). Pure. Source: RFC 9110, 8.8.2.2 and 13.1.5.
 */
export const strongValidator = ({ etag, 'last-modified': changed, date }: IncomingHttpHeaders): string | undefined => {
  if (etag !== undefined && /^"[^"]*"$/.test(etag)) return etag;
  if (changed === undefined || date === undefined) return undefined;
  return Date.parse(date) - Date.parse(changed) >= 1_000 ? changed : undefined;
};

/** The request headers that ask for the rest of what is there; undefined when it can't be asked for. Pure. */
export const restOf = ({ validator }: Origin, receivedBytes: number): Record<string, string> | undefined =>
  validator === undefined || receivedBytes === 0 ? undefined : { range: `bytes=${receivedBytes}-`, 'if-range': validator };

/**
 * Whether a response is exactly the rest that was asked for: 206, from the byte after the last one to the end of the same
 * whole. Its size in bytes, or undefined: then nothing of it may be used. Pure. Source: RFC 9110, 14.4 and 15.3.7.
 */
export const wholeOfRest = ({ status, headers }: Answered, { validator, totalBytes }: Origin, receivedBytes: number): number | undefined => {
  const [, first, last, whole] = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(headers['content-range'] ?? '') ?? [];
  if (status !== 206 || whole === undefined || Number(first) !== receivedBytes || Number(last) !== Number(whole) - 1) return undefined;
  if (totalBytes !== undefined && totalBytes !== Number(whole)) return undefined;
  const { etag } = headers;
  if (validator?.startsWith('"') === true && etag !== undefined && etag !== validator) return undefined;
  return Number(whole);
};
