import { dated, type Verdict } from '#crds/v1alpha1/condition.ts';
import { imageFinalizer } from '#crds/v1alpha1/names.ts';
import { isReason } from '#crds/v1alpha1/reasons.ts';
import type { ImageStatus, VirtualMachineImage } from '#crds/v1alpha1/virtualmachineimage.ts';
import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import { againstChecksum, againstDigest, claimOf, desiredImage } from './copies.ts';

/** Everything that a decision about one image rests on. */
export type ImageFacts = {
  image: VirtualMachineImage;
  /** Nodes whose bound VMs refer to it. */
  users: readonly string[];
  /** Names of the VMs that use it; while it is being deleted, of those that have it. */
  usedBy: readonly string[];
  /** Connected nodes that may import it when nobody refers to it. */
  connected: readonly string[];
  /** Those of them that take no new intent now, by their own word. */
  refusing: readonly string[];
  /** What each node says of it. */
  reports: ReadonlyMap<string, ObservedImage>;
  /** Nodes that hold it, by their own word. */
  holders: readonly string[];
};

/** The image's status, what nodes shall have, which shall drop their copy, and what becomes of the finalizer, which is written first. */
export type ImageDecision = { status?: ImageStatus; finalizer?: 'add' | 'remove'; tell: ReadonlyMap<string, DesiredImage>; drop: readonly string[] };

/**
 * Decides about one image. One node is asked to import it first and so fixes its digest, if that is not against spec.checksum; what
 * others say counts for nothing. They import it when a VM of theirs needs it, and must get the same. A copy on a node is
 * only a cache: VMs hold links of their own.
 */
export const decide = (facts: ImageFacts, now: Date): ImageDecision => {
  const { image, users, connected, reports } = facts;
  const { metadata, status: old } = image;
  const deleting = metadata.deletionTimestamp !== undefined;
  const finalized = metadata.finalizers.includes(imageFinalizer);
  if (deleting && facts.usedBy.length === 0) return { ...(finalized ? { finalizer: 'remove' as const } : {}), tell: new Map(), drop: facts.holders };
  const importer = chooseImporter(facts);
  const first = desiredImage(image);
  const answer = importer === undefined ? undefined : reports.get(importer);
  // Of this very desire: what a node holds from before was perhaps asked for by nobody.
  const digest = old.digest ?? (answer?.digest === desireDigest(first) ? claimOf(answer) : undefined);
  const withDigest = (known: string | undefined): DesiredImage => (known === undefined ? first : { ...first, digest: known });
  // Until the digest is recorded one node alone imports: two first imports could fix two contents, and what is not written yet may still become another one.
  const nodes = old.digest === undefined ? (importer === undefined ? [] : [importer]) : [...new Set([...users, ...(importer === undefined ? [] : [importer])])];
  const told = nodes.filter((node) => users.includes(node) || connected.includes(node) || facts.holders.includes(node));
  // Once it is being deleted the API server takes no finalizer more.
  const claims = facts.usedBy.length > 0 && !finalized && !deleting;
  return { ...(claims ? { finalizer: 'add' as const } : {}), status: statusOf(facts, importer, withDigest(digest), now), tell: new Map(told.map((node) => [node, withDigest(old.digest)])), drop: [] };
};

/**
 * The node that imports it first. It stays that while it is connected, but none keeps the VMs of others waiting for what it can not do: one that takes
 * no new intent gives way to any other, one whose import fails to a node that needs the image and has not failed.
 */
const chooseImporter = ({ image, users, connected, refusing, reports }: ImageFacts): string | undefined => {
  const able = connected.filter((node) => !againstChecksum(image, reports.get(node))).toSorted();
  const isWell = (node: string): boolean => able.includes(node) && !refusing.includes(node) && reports.get(node)?.trouble === undefined;
  const { importingNode: now, digest } = image.status;
  if (now !== undefined && (digest !== undefined || isWell(now))) return now;
  const stays = now !== undefined && able.includes(now) ? now : undefined;
  const inPlace = stays === undefined || refusing.includes(stays) ? able.find(isWell) : undefined;
  return users.find(isWell) ?? inPlace ?? stays ?? users.find((node) => able.includes(node)) ?? able[0];
};

const namedUsers = 5;

/** Why a deleted image is still there. */
const inUseOf = ({ image: { metadata }, usedBy }: ImageFacts): Verdict[] => {
  if (metadata.deletionTimestamp === undefined) return [];
  const more = usedBy.length > namedUsers ? ` and ${usedBy.length - namedUsers} more` : '';
  const users = `${usedBy.length === 1 ? 'VM' : `${usedBy.length} VMs,`} ${usedBy.slice(0, namedUsers).join(', ')}${more}`;
  return [{ type: 'InUse', status: 'True', reason: 'InUse', message: `deleted, but used by ${users}: it goes with the last of them, and no other VM gets it` }];
};

const namedRefusals = 3;

/** Nodes that report other bytes than those that this image is, although they were told. */
const refusalsOf = ({ image, reports }: ImageFacts, desire: DesiredImage): Verdict[] => {
  const refused = [...reports].filter(([, report]) => againstDigest(desire, report) || againstChecksum(image, report)).toSorted(([a], [b]) => (a < b ? -1 : 1));
  if (refused.length === 0) return [];
  const named = refused.slice(0, namedRefusals).map(([node, report]) => `${node} reports ${claimOf(report)}`).join(', ');
  const more = refused.length > namedRefusals ? ` and ${refused.length - namedRefusals} more` : '';
  const [reason, is] = desire.digest === undefined ? ['ChecksumMismatch' as const, `spec.checksum is ${image.spec.checksum}`] : ['DigestMismatch' as const, `the image is ${desire.digest}`];
  return [{ type: 'CopiesRefused', status: 'True', reason, message: `${named}${more}, and ${is}: such a copy is not used; look at the agent of the node` }];
};

const statusOf = (facts: ImageFacts, importer: string | undefined, desire: DesiredImage, now: Date): ImageStatus => {
  const { image, reports } = facts;
  const { digest } = desire;
  const { metadata: { generation }, status: old } = image;
  const report = importer === undefined ? undefined : reports.get(importer);
  const content = digest !== undefined && report?.content?.digest === digest ? report.content : undefined;
  const refusals = refusalsOf(facts, desire);
  const base = { observedGeneration: generation, ...(importer === undefined ? {} : { importingNode: importer }), ...(digest === undefined ? {} : { digest }) };
  const sizes = content ? { size: content.sizeBytes, virtualSize: bytes(content.virtualSizeBytes) } : { ...(old.size === undefined ? {} : { size: old.size }), ...(old.virtualSize === undefined ? {} : { virtualSize: old.virtualSize }) };
  const make = (phase: ImageStatus['phase'], verdicts: Verdict[], progress?: number): ImageStatus => ({
    ...base, ...sizes, ...(phase ? { phase } : {}), ...(progress === undefined ? {} : { progress: `${progress}%` }),
    conditions: dated([...verdicts, ...refusals, ...inUseOf(facts)], old.conditions ?? [], generation, now),
  });
  // The digest is fixed: the image is good, whatever one node says of its own copy now.
  if (digest !== undefined) {
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
  const [refused] = refusals;
  if (importer === undefined && refused) {
    const { reason, message } = refused;
    return make('Pending', [{ type: 'Ready', status: 'False', reason, message }, { type: 'Reconciling', status: 'True', reason, message }]);
  }
  if (importer === undefined) {
    const message = 'no node is connected';
    return make('Pending', [{ type: 'Ready', status: 'False', reason: 'WaitingForNode', message }, { type: 'Reconciling', status: 'True', reason: 'WaitingForNode', message }]);
  }
  const message = `${importer} imports the image`;
  return make('Importing', [{ type: 'Ready', status: 'False', reason: 'Importing', message }, { type: 'Reconciling', status: 'True', reason: 'Importing', message }], report?.progress ?? 0);
};

const bytes = (count: number): string => (count % 1024 ** 2 === 0 ? `${count / 1024 ** 2}Mi` : `${count}`);
