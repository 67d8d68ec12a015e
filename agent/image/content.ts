import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';
import { type DesiredImage, desiredImage, uid as uidForm } from '#crds/wire/desired.ts';

/** A SHA-256 in hex. */
export const hex64 = z.string().regex(/^[0-9a-f]{64}$/);

/** One imported content, as its sidecar has it. */
export const content = z.strictObject({
  /** Of the fetched bytes, in hex; the name of the content. */
  sha256: hex64,
  sha512: z.string().regex(/^[0-9a-f]{128}$/).optional(),
  format: z.enum(['qcow2', 'raw']),
  /** Of the fetched file. */
  sizeBytes: z.int().min(0),
  virtualSizeBytes: z.int().min(1),
  /** Of our own qcow2. */
  fileBytes: z.int().min(1),
  /** The image that it was imported for first; tells whose it is when a crash came before the claim was completed. */
  importedFor: uidForm,
});

/** That an image is wanted, and which content it turned out to be. `evicted`: what was known of a content that has left the cache. */
export const claim = z.strictObject({ desire: desiredImage, sha256: hex64.optional(), evicted: content.optional() });

/** One imported content. */
export type Content = z.output<typeof content>;
/** That an image is wanted, and which content it turned out to be. */
export type Claim = z.output<typeof claim>;

/** Whether a content is what an image asks for; undefined when the answer needs a hash that was not made. Pure. */
export const fits = (desire: DesiredImage, entry: Pick<Content, 'sha256' | 'sha512' | 'format'>): boolean | undefined => {
  if (desire.format !== entry.format) return false;
  if (desire.digest !== undefined && desire.digest !== `sha256:${entry.sha256}`) return false;
  if (desire.checksum === undefined) return true;
  if (desire.checksum.startsWith('sha256:')) return desire.checksum === `sha256:${entry.sha256}`;
  return entry.sha512 === undefined ? undefined : desire.checksum === `sha512:${entry.sha512}`;
};

/** Whether a content is that of a claim. Pure. */
export const isClaimedBy = (entry: Content, by: Claim): boolean =>
  by.sha256 === undefined ? entry.importedFor === by.desire.uid && fits(by.desire, entry) === true : by.sha256 === entry.sha256;

/** What makes two images one download: bytes that are known to be the same, else only the image itself. In hex. Pure. */
export const downloadKey = ({ uid, format, digest, checksum, checksumUrl, url }: DesiredImage): string =>
  digestOf([format, digest ?? checksum ?? (checksumUrl === undefined ? uid : [checksumUrl, url])]);

/** Whether two desires ask the same places for the same content. Pure. */
export const sameSource = (a: DesiredImage, b: DesiredImage): boolean => sourceOf(a) === sourceOf(b);

const sourceOf = ({ url, mirrors, format, checksum, checksumUrl }: DesiredImage): string => digestOf({ url, mirrors, format, checksum, checksumUrl });
