import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';
import { desiredImage, desiredVm, desireDigest, hardware, uid } from '#crds/wire/desired.ts';
import type { Remembered } from '#crds/wire/judge.ts';
import type { Held } from '#crds/wire/messages.ts';
import { diskOwner, keepOrder } from '#crds/wire/kept.ts';
import { lastExit, observedVm } from '#crds/wire/observed.ts';

/** Version of the files that this build writes. A file of a later one is left alone and its VM is not touched. */
export const ledgerVersion = 2;

const order = z.strictObject({ leaderEpoch: z.int().min(0), revision: z.int().min(0) });

/** The record of a VM that was never started again. */
export const noRestarts = { count: 0, quickEnds: 0, ranSinceMs: null, dueMs: null, dueTime: null };

/**
 * What must be remembered of one VM.
 *
 *   desired    what it shall be; null when only an end was ordered
 *   order      place in history of the command that said so
 *   ending     a tombstone was accepted; never taken back
 *   unixId     the Unix user of its processes and disks, unique while its directory exists
 *   slots      root port of each device (`disk/NAME`, `nic/NAME`, `seed`), kept over power cycles
 *   disks      names that were made before a start was ever tried, or before they were plugged: their files must be there
 *   seeded     the cloud-init seed was written
 *   run        a start was ordered and its end is not dealt with yet; `ran` once its guest has executed anything
 *   applied    the hardware that the run has; null after an end, and in files of version 1
 *   plugging   in what `applied` is in doubt: disks and cards (`nic/NAME`) that are being plugged, which QEMU may have or not;
 *              and what is being changed of what it has (`doubt.ts`)
 *   stopping   a stop is under way: since when (milliseconds of the node's monotonic clock), whether by force, and what for
 *   ended      the guest ended by itself: started again by its restart policy, or after a desire said Stopped
 *   restarts   how often the policy started it again; ends in a row that came quickly; when its guest first ran and when the
 *              next start is due (milliseconds of the node's monotonic clock; `dueTime` is the same for people)
 *   firmwareMade   its firmware's variable store and TPM state were made: they must be there
 *   times      when the run was ready to be started, when its guest first ran, and when it passed its probe
 *   restartToken   the one that was honoured last
 *   retained   disks that outlive it, by the last word about each; also such as the desire has since omitted
 *   keep       what the tombstone said of such disks
 *   replaced   disks that an edit took away, and under whose names CD drives have come meanwhile
 */
const vmEntry = z.strictObject({
  kind: z.literal('vm'),
  uid,
  desired: desiredVm.nullable(),
  order,
  ending: z.boolean(),
  unixId: z.int().min(1).nullable(),
  slots: z.record(z.string().max(32), z.int().min(0).max(63)),
  disks: z.array(z.string().max(20)).max(64),
  seeded: z.boolean(),
  run: z.strictObject({ startId: z.string().regex(/^[A-Za-z0-9-]{1,64}$/), ran: z.boolean() }).nullable(),
  applied: hardware.nullable().default(null),
  plugging: z.array(z.string().max(24)).max(192).default([]),
  stopping: z.strictObject({ sinceMs: z.int(), forced: z.boolean(), why: z.enum(['stop', 'restart', 'panic']).default('stop') }).nullable(),
  ended: z.boolean(),
  restarts: z.strictObject({
    count: z.int().min(0), quickEnds: z.int().min(0), ranSinceMs: z.int().nullable(), dueMs: z.int().nullable(), dueTime: z.string().max(40).nullable(),
  }).default(noRestarts),
  firmwareMade: z.boolean().default(false),
  times: z.strictObject({ prepared: z.string().max(40), running: z.string().max(40).nullable(), guestReady: z.string().max(40).nullable() }).nullable().default(null),
  restartToken: z.string().max(63).nullable().default(null),
  lastExit: lastExit.nullable(),
  machine: observedVm.shape.machine.unwrap().nullable(),
  retained: z.strictObject({ namespaceUid: uid, disks: z.array(z.string().max(20)).min(1).max(64) }).optional(),
  keep: keepOrder.optional(),
  replaced: z.array(z.string().max(20)).max(64).optional(),
});

/** What must be remembered of one image. */
const imageEntry = z.strictObject({ kind: z.literal('image'), uid, desired: desiredImage, order, ending: z.boolean() });

/**
 * What must be remembered of a disk that has outlived its VM, or its place in it.
 *
 *   keeping -> kept -> taking -> (gone: it is a VM's)        keeping and taking turn into each other when the VM is edited meanwhile
 *               kept -> ending -> (gone)                     a tombstone was accepted
 *
 * `moving`: its files are on the way between this place and that VM, and may be in either.
 */
const diskEntry = z.strictObject({
  kind: z.literal('disk'), uid, owner: diskOwner, order, ending: z.boolean(), sizeMiB: z.int().min(0),
  moving: z.strictObject({ is: z.enum(['keeping', 'taking']), vmUid: uid }).nullable(),
});

const entry = z.discriminatedUnion('kind', [vmEntry, imageEntry, diskEntry]);
const envelope = z.object({ version: z.int(), checksum: z.string(), entry: z.unknown() });

/** What must be remembered of one VM. */
export type VmEntry = z.output<typeof vmEntry>;
/** What must be remembered of one image. */
export type ImageEntry = z.output<typeof imageEntry>;
/** What must be remembered of a disk that has outlived its VM. */
export type DiskEntry = z.output<typeof diskEntry>;
/** What must be remembered of one object. */
export type Entry = z.output<typeof entry>;

/** A VM of which nothing is known but its uid. */
export const blankVm = (of: string): VmEntry => ({
  kind: 'vm', uid: of, desired: null, order: { leaderEpoch: 0, revision: 0 }, ending: false, unixId: null, slots: {}, disks: [], seeded: false,
  run: null, applied: null, plugging: [], stopping: null, ended: false, restarts: noRestarts, firmwareMade: false, times: null, restartToken: null, lastExit: null, machine: null,
});

/**
 * A VM that this node has no record of. The disks that the operator says were `made` here, and with them what its firmware remembers, must be
 * there all the same: when they are not, they were lost together with the record, and are not made anew.
 */
export const strangerVm = (of: string, made: readonly string[] = []): VmEntry => ({ ...blankVm(of), disks: [...made], firmwareMade: made.length > 0 });

/** An entry as the text of its file. */
export const writeEntry = (of: Entry): string => `${JSON.stringify({ version: ledgerVersion, checksum: digestOf(of), entry: of })}\n`;

/** What a ledger file turned out to hold. `foreign`: another build wrote it so. `bad`: it is damaged. */
export type ReadEntry = { is: 'entry'; entry: Entry } | { is: 'foreign'; why: string } | { is: 'bad'; why: string };

/** Reads the text of a ledger file. */
export const readEntry = (text: string): ReadEntry => {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // What the parser says of it quotes the text, and in there may be what came from a Secret.
    return { is: 'bad', why: 'it is no JSON' };
  }
  const outer = envelope.safeParse(json);
  if (!outer.success) return { is: 'bad', why: 'no version and checksum' };
  if (outer.data.version > ledgerVersion) return { is: 'foreign', why: `version ${outer.data.version} is newer than this agent` };
  if (digestIn(outer.data.entry) !== outer.data.checksum) return { is: 'bad', why: 'the checksum differs' };
  const inner = entry.safeParse(outer.data.entry);
  if (inner.success) return { is: 'entry', entry: inner.data };
  const issue = inner.error.issues[0];
  return { is: 'foreign', why: `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}` };
};

/** The checksum of what is in a file; undefined when that is nested deeper than any entry, and than the stack. */
const digestIn = (of: unknown): string | undefined => {
  try {
    return digestOf(of);
  } catch {
    return undefined;
  }
};

/** What both sides compare of an entry. */
export const heldOf = (of: VmEntry | ImageEntry): Held => ({
  kind: of.kind,
  uid: of.uid,
  namespace: of.desired?.namespace ?? '',
  name: of.desired?.name ?? '',
  generation: of.desired?.generation ?? 0,
  epoch: of.kind === 'vm' ? (of.desired?.epoch ?? 0) : 1,
  digest: of.desired ? desireDigest(of.desired) : '',
  ending: of.ending,
  ...(of.kind === 'vm' && of.desired ? { uuid: of.desired.uuid } : {}),
});

/** What later commands about an entry are judged by. */
export const rememberedOf = (of: Entry): Remembered => ({
  ...(of.kind === 'disk' ? { kind: of.kind, uid: of.uid, namespace: of.owner.namespace, name: of.owner.vm, generation: 0, epoch: 1, digest: '', ending: of.ending } : heldOf(of)),
  ...of.order,
});
