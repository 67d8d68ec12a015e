import { dated, type Verdict } from '#crds/v1alpha1/condition.ts';
import { isReason } from '#crds/v1alpha1/reasons.ts';
import type { ImageStatus, VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';

/** Everything that a decision about one image rests on. */
export type ImageFacts = {
  image: VirtualMachineImage;
  /** Nodes whose bound VMs refer to it. */
  users: readonly string[];
  /** Connected nodes that may import it when nobody refers to it. */
  connected: readonly string[];
  /** What each node says of it. */
  reports: ReadonlyMap<string, ObservedImage>;
  /** Nodes that hold it, by their own word. */
  holders: readonly string[];
};

/** The image's status, what nodes shall have, and which shall drop their copy. */
export type ImageDecision = { status?: ImageStatus; tell: ReadonlyMap<string, DesiredImage>; drop: readonly string[] };

/**
 * Decides about one image. One node imports it first and so fixes its digest; others import it when a VM of theirs needs
 * it, and must get the same. A copy on a node is only a cache: VMs hold links of their own.
 */
export const decide = (facts: ImageFacts, now: Date): ImageDecision => {
  const { image, users, connected, reports } = facts;
  const { metadata, spec, status: old } = image;
  if (metadata.deletionTimestamp !== undefined) return { tell: new Map(), drop: facts.holders };
  const importer = chooseImporter(facts);
  const digest = old.digest ?? (importer === undefined ? undefined : reports.get(importer)?.content?.digest);
  const { checksum, checksumUrl, format, source: { http: { url, mirrors } } } = spec;
  const desire: DesiredImage = {
    kind: 'image', uid: metadata.uid, namespace: metadata.namespace, name: metadata.name, generation: metadata.generation, url, format,
    ...(mirrors === undefined ? {} : { mirrors }), ...(checksum === undefined ? {} : { checksum }), ...(checksumUrl === undefined ? {} : { checksumUrl }),
    ...(digest === undefined ? {} : { digest }),
  };
  // Until the digest is fixed one node alone imports: two first imports could fix two contents.
  const nodes = digest === undefined ? (importer === undefined ? [] : [importer]) : [...new Set([...users, ...(importer === undefined ? [] : [importer])])];
  const told = nodes.filter((node) => users.includes(node) || connected.includes(node) || facts.holders.includes(node));
  return { status: statusOf(facts, importer, digest, now), tell: new Map(told.map((node) => [node, desire])), drop: [] };
};

const chooseImporter = ({ image, users, connected, reports }: ImageFacts): string | undefined => {
  const ready = [...reports].find(([, report]) => report.state === 'ready')?.[0];
  const { importingNode } = image.status;
  const stays = importingNode !== undefined && (connected.includes(importingNode) || image.status.digest !== undefined) ? importingNode : undefined;
  return ready ?? stays ?? users.find((node) => connected.includes(node)) ?? connected.toSorted()[0];
};

const statusOf = ({ image, reports }: ImageFacts, importer: string | undefined, digest: string | undefined, now: Date): ImageStatus => {
  const { metadata: { generation }, status: old } = image;
  const report = importer === undefined ? undefined : reports.get(importer);
  const content = report?.content;
  const base = { observedGeneration: generation, ...(importer === undefined ? {} : { importingNode: importer }), ...(digest === undefined ? {} : { digest }) };
  const sizes = content ? { size: content.sizeBytes, virtualSize: bytes(content.virtualSizeBytes) } : { ...(old.size === undefined ? {} : { size: old.size }), ...(old.virtualSize === undefined ? {} : { virtualSize: old.virtualSize }) };
  const make = (phase: ImageStatus['phase'], verdicts: Verdict[], progress?: number): ImageStatus => ({
    ...base, ...sizes, ...(phase ? { phase } : {}), ...(progress === undefined ? {} : { progress: `${progress}%` }),
    conditions: dated(verdicts, old.conditions ?? [], generation, now),
  });
  // The digest is fixed: the image is good, whatever one node says of its own copy now.
  if (old.digest !== undefined || report?.state === 'ready') {
    return make('Ready', [{ type: 'Ready', status: 'True', reason: 'Ready', message: 'the image is imported' }], 100);
  }
  if (report?.state === 'failed' || report?.trouble) {
    const reason = report.trouble && isReason(report.trouble.reason) ? report.trouble.reason : 'FetchFailed';
    const message = report.trouble?.message ?? 'the import failed';
    const final = report.trouble?.final ?? false;
    return make(final ? 'Failed' : 'Importing', [
      { type: 'Ready', status: 'False', reason, message },
      { type: final ? 'Stalled' : 'Reconciling', status: 'True', reason, message },
    ]);
  }
  if (importer === undefined) {
    const message = 'no node is connected';
    return make('Pending', [{ type: 'Ready', status: 'False', reason: 'WaitingForNode', message }, { type: 'Reconciling', status: 'True', reason: 'WaitingForNode', message }]);
  }
  const message = `${importer} imports the image`;
  return make('Importing', [{ type: 'Ready', status: 'False', reason: 'Importing', message }, { type: 'Reconciling', status: 'True', reason: 'Importing', message }], report?.progress ?? 0);
};

const bytes = (count: number): string => (count % 1024 ** 2 === 0 ? `${count / 1024 ** 2}Mi` : `${count}`);
