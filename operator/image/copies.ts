import type { Reason } from '#crds/v1alpha1/reasons.ts';
import type { VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';

/** What a node is told of an image whose content is not fixed. Pure. */
export const desiredImage = ({ metadata, spec }: VirtualMachineImage): DesiredImage => {
  const { checksum, checksumUrl, format, source: { http: { url, mirrors } } } = spec;
  return {
    kind: 'image', uid: metadata.uid, namespace: metadata.namespace, name: metadata.name, generation: metadata.generation, url, format,
    ...(mirrors === undefined ? {} : { mirrors }), ...(checksum === undefined ? {} : { checksum }), ...(checksumUrl === undefined ? {} : { checksumUrl }),
  };
};

/** The content that a node says it has. Pure. */
export const claimOf = ({ state, content }: ObservedImage): string | undefined => (state === 'ready' ? content?.digest : undefined);

/** A claim that is against the checksum of the spec. Of a sha512 nothing can be said here: the node compares it. Pure. */
export const againstChecksum = ({ spec: { checksum } }: VirtualMachineImage, report: ObservedImage | undefined): boolean => {
  const claim = report && claimOf(report);
  return claim !== undefined && checksum?.startsWith('sha256:') === true && claim !== checksum;
};

/** A claim of other content, by a node that was told what the image is. Pure. */
export const againstDigest = (desire: DesiredImage, report: ObservedImage): boolean => {
  const claim = claimOf(report);
  return desire.digest !== undefined && claim !== undefined && claim !== desire.digest && report.digest === desireDigest(desire);
};

/** Why the copy that a node reports is not used; undefined when it may be. Pure. */
export const copyRefused = (image: VirtualMachineImage, report: ObservedImage | undefined): { reason: Reason; message: string } | undefined => {
  const { metadata: { name }, spec: { checksum }, status: { digest } } = image;
  if (!report) return undefined;
  if (digest !== undefined && againstDigest({ ...desiredImage(image), digest }, report)) return { reason: 'DigestMismatch', message: `${claimOf(report)} is no copy of image ${name}, which is ${digest}` };
  return againstChecksum(image, report) ? { reason: 'ChecksumMismatch', message: `${claimOf(report)} is no copy of image ${name}, whose spec.checksum is ${checksum}` } : undefined;
};
