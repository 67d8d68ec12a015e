import { expect, test } from '@jest/globals';
import { virtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import { copyRefused, desiredImage } from './copies.ts';

const uid = '11111111-2222-4333-8444-555555555555';
const [digest, other] = [`sha256:${'a'.repeat(64)}`, `sha256:${'b'.repeat(64)}`];
const image = (status: object, checksum?: string) => virtualMachineImage.parse({
  metadata: { name: 'guest', namespace: 'default', uid, resourceVersion: '1' }, spec: { source: { http: { url: 'http://h/i' } }, format: 'qcow2', ...(checksum === undefined ? {} : { checksum }) }, status: { observedGeneration: -1, ...status },
});
const fixed = image({ digest });
const told = desireDigest({ ...desiredImage(fixed), digest });
const report = (of: string, reflects = told, state: ObservedImage['state'] = 'ready'): ObservedImage => ({ kind: 'image', uid, generation: 1, digest: reflects, state, progress: 100, content: { digest: of, sizeBytes: 1, virtualSizeBytes: 1 } });

test.each([
  ['that is the image', fixed, report(digest), undefined],
  ['of other content, on a node that was told what the image is', fixed, report(other), { reason: 'DigestMismatch', message: `${other} is no copy of image guest, which is ${digest}` }],
  ['of other content, on a node that was not told yet', fixed, report(other, 'of an older desire'), undefined],
  ['that is being made', fixed, report(other, told, 'importing'), undefined],
  ['of an image whose content nobody has fixed', image({}), report(other), undefined],
  ['against the checksum', image({}, digest), report(other, 'any'), { reason: 'ChecksumMismatch', message: `${other} is no copy of image guest, whose spec.checksum is ${digest}` }],
  ['that nobody told of', fixed, undefined, undefined],
])('a copy %s', (_, of, said, refused) => {
  expect(copyRefused(of, said)).toEqual(refused);
});
