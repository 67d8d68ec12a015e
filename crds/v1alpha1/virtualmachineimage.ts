import { z } from 'zod';
import { architecture } from './machine.ts';
import { conditions, type Kind, objectMeta, ruled, transition } from './meta.ts';

const httpUrl = () => z.string().min(1).max(2048).regex(/^https?:\/\/([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?\/[!-~]*$/);

const content = ruled(
  z.strictObject({
    source: z.strictObject({
      http: z.strictObject({
        url: httpUrl().describe('Where to fetch it: http or https, without user name and password. A node fetches it once and keeps it. Addresses that are not public must be allowed in the configuration of the agent (image_allowed_networks).'),
        mirrors: z.array(httpUrl()).min(1).max(8).meta({ 'x-kubernetes-list-type': 'atomic' }).describe('Further URLs of the same file, tried in this order when one before fails. They need a checksum or a checksumUrl.').optional(),
      }).describe('Fetched over HTTP(S). A file that is compressed by gzip, xz or zstd is unpacked.'),
    }).describe('Where the content comes from.'),
    checksum: z.string().max(140).regex(/^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/).describe('What the fetched bytes, as published, must hash to: sha256:HEX or sha512:HEX. Without it and without checksumUrl the first import fixes the content.').optional(),
    checksumUrl: httpUrl().describe('URL of a list of checksums (SHA256SUMS or SHA512SUMS, as written by coreutils or BSD) that has an entry for the file name of the URL. It is read before the first import. Exclusive with checksum.').optional(),
    architecture: architecture.describe('Architecture that the content is for; VMs that name none get it. amd64 when unset.').optional(),
    format: z.enum(['qcow2', 'raw']).describe('Format of the disk in the file, unpacked if the file is compressed. It is never guessed.'),
  }),
  { rule: '!(has(self.checksum) && has(self.checksumUrl))', message: 'give at most one of checksum and checksumUrl' },
  (it) => it.checksum === undefined || it.checksumUrl === undefined,
);

const mirrored = ruled(
  content,
  { rule: '!has(self.source.http.mirrors) || has(self.checksum) || has(self.checksumUrl)', message: 'mirrors need a checksum or a checksumUrl, so that all of them give the same content' },
  (it) => it.source.http.mirrors === undefined || it.checksum !== undefined || it.checksumUrl !== undefined,
);

const listed = ruled(
  mirrored,
  { rule: "!has(self.checksumUrl) || self.source.http.url.matches('^[^?#]*/[^/?#]+([?#].*)?$')", message: 'checksumUrl needs a url that ends in a file name, to be looked for in the list' },
  (it) => it.checksumUrl === undefined || /^[^?#]*\/[^/?#]+([?#].*)?$/.test(it.source.http.url),
);

/** The content that the user wants to be known under a name. */
export const imageSpec = transition(listed, { rule: 'self == oldSelf', message: 'the content of an image can not be changed; create another image' })
  .describe('What the user wants. Immutable.');

/** What is true of one image; written by the operator alone. */
const imageStatus = z.object({
  observedGeneration: z.int32().describe('The generation of the spec that this status is about; -1 before the operator has seen the image.'),
  phase: z.enum(['Pending', 'Importing', 'Ready', 'Failed']).describe('Where the image is in its life.').optional(),
  digest: z.string().max(80).describe('sha256:HEX of the fetched bytes. Fixed by the first import; later ones must match.').optional(),
  size: z.int().describe('Size of the fetched file in bytes.').optional(),
  virtualSize: z.string().max(24).describe('Size of the disk that it holds.').optional(),
  progress: z.string().max(8).describe('How much of the import is done, in steps of 10 %.').optional(),
  importingNode: z.string().max(253).describe('The node that imports it first.').optional(),
  conditions: conditions().optional(),
}).describe('What is true. Written by the operator alone.');

/** What is true of one image. */
export type ImageStatus = z.output<typeof imageStatus>;

/** A VirtualMachineImage as it is read from the API server. */
export const virtualMachineImage = z.object({ metadata: objectMeta.required({ namespace: true }), spec: imageSpec, status: imageStatus.default({ observedGeneration: -1 }) });
/** A VirtualMachineImage as it is read from the API server. */
export type VirtualMachineImage = z.output<typeof virtualMachineImage>;

/** The CRD's facts. */
export const virtualMachineImageKind = {
  kind: 'VirtualMachineImage', plural: 'virtualmachineimages', singular: 'virtualmachineimage', shortNames: ['vmimage'], scope: 'Namespaced',
  description: 'A disk image that virtual machines start from.', spec: imageSpec, status: imageStatus,
  columns: [
    { name: 'Status', type: 'string', jsonPath: '.status.phase', description: 'Where the image is in its life.' },
    { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status', description: 'Whether VMs can start from it.' },
    { name: 'Progress', type: 'string', jsonPath: '.status.progress', description: 'How much of the import is done.' },
    { name: 'Virtual-Size', type: 'string', jsonPath: '.status.virtualSize', description: 'Size of the disk that it holds.' },
    { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since creation.' },
    { name: 'Digest', type: 'string', jsonPath: '.status.digest', description: 'Digest of the content.', wide: true },
    { name: 'Message', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].message', description: 'What the image is waiting for, or what is wrong.', wide: true },
  ],
} satisfies Kind;
