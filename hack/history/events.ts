import { z } from 'zod';

/**
 * Milliseconds of the machine's monotonic clock: one clock for every process, so that what they tell can be put in order.
 * Source: clock_gettime(2), CLOCK_MONOTONIC; Node reads it for `process.hrtime`.
 */
export const monotonicMs = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

const t = z.number();
/** A process: its id and its start in clock ticks, since ids are used again. */
const who = { pid: z.int(), ticks: z.string() };
/** The part of a VM's spec that a history is judged by. */
export const heldSpec = z.looseObject({
  powerState: z.enum(['Running', 'Stopped', 'Paused']), restartPolicy: z.enum(['Always', 'OnFailure', 'Never']), restartToken: z.string().optional(), memory: z.looseObject({ size: z.string() }),
  disks: z.array(z.looseObject({ name: z.string() })), interfaces: z.array(z.looseObject({ name: z.string() })).optional(),
});
const object = z.object({ name: z.string(), uid: z.string(), spec: heldSpec });
const standing = object.extend({
  generation: z.int(), observedGeneration: z.int(), deleting: z.boolean(), phase: z.string(), ready: z.string(), reason: z.string(), message: z.string(),
  /** Whether a restart is said to be needed for the whole spec; whether it is said to be on its way by itself. */
  restartRequired: z.boolean(), reconciling: z.boolean(), restartTokenObserved: z.string().optional(),
});
/** What QEMU itself says of a guest; its disks by their names, and how many network cards it has. */
const guest = z.object({ status: z.string(), memoryMiB: z.number(), disks: z.array(z.string()), nics: z.int() });
const diary = z.object({ mark: z.string(), count: z.int() });
const found = z.object({ ...who, parent: z.int(), uid: z.string(), program: z.string() });

/**
 * What happened. The witness tells what it saw in /proc and in the folders of VMs, the stage what it did to the processes, the
 * editor what it asked the API server and what that answered; nobody asks the agent or the operator.
 *
 * Sights are certain, their gaps are not: a process was there at every moment from the `t` of `process` to the `last` of `ended`.
 *
 *   process   a process in the folder of a VM, or a QEMU that has a file of it open, was seen for the first time, or has become another program
 *   ended     it was seen no more; `last` is when it surely still was there
 *   opened    a process has a disk open for writing; `disk` is the file itself, whatever its name (device and inode)
 *   closed    it has it open no more
 *   file      a disk's file lies under this name now, or (null) does not; told by its inode and the time of its birth
 *   boot      a guest has read from its disk and told on its console
 *   looked    the witness is awake; the longest pause between two looks since it said so last
 *   did       something was done to a process
 *   asked, answered   a request to the API server and its outcome; `unknown`: it may or may not have been done
 *   gone      the API server does not know this uid any more
 *   says      the status of a VM is another one now
 *   rest      everything was let to settle, and looked at from all sides; `diaries` are those on the disks of VMs that do not run
 */
export const event = z.discriminatedUnion('is', [
  z.object({ is: z.literal('process'), t, ...who, uid: z.string(), program: z.string() }),
  z.object({ is: z.literal('ended'), t, ...who, last: t }),
  z.object({ is: z.literal('opened'), t, ...who, uid: z.string(), disk: z.string(), path: z.string() }),
  z.object({ is: z.literal('closed'), t, ...who, disk: z.string(), last: t }),
  z.object({ is: z.literal('file'), t, uid: z.string(), path: z.string(), id: z.string().nullable() }),
  z.object({ is: z.literal('boot'), t, uid: z.string(), mark: z.string(), count: z.int() }),
  z.object({ is: z.literal('looked'), t, looks: z.int(), longestMs: z.number() }),
  z.object({ is: z.literal('did'), t, what: z.string(), uid: z.string().optional(), hurts: z.boolean() }),
  z.object({
    is: z.literal('asked'), t, request: z.int(), verb: z.enum(['create', 'patch', 'delete']), name: z.string(), uid: z.string().optional(), body: z.looseObject({}).optional(),
  }),
  z.object({ is: z.literal('answered'), t, request: z.int(), outcome: z.enum(['done', 'refused', 'unknown']), object: object.extend({ deleting: z.boolean() }).optional(), why: z.string().optional() }),
  z.object({ is: z.literal('gone'), t, name: z.string(), uid: z.string() }),
  z.object({ is: z.literal('says'), t, name: z.string(), uid: z.string(), text: z.string() }),
  z.object({
    is: z.literal('rest'), t, stage: z.string(), objects: z.array(standing), processes: z.array(found),
    guests: z.record(z.string(), guest), diaries: z.record(z.string(), diary), traces: z.record(z.string(), z.array(z.string())),
  }),
]);

/** One thing that happened. */
export type HistoryEvent = z.output<typeof event>;
/** The event of one kind. */
export type EventOf<Is extends HistoryEvent['is']> = Extract<HistoryEvent, { is: Is }>;
/** What the API server holds of a VM: what is asked for, and how it is said to stand. */
export type Standing = z.output<typeof standing>;

/** The events of one kind, in their order. Pure. */
export const eventsOf = <Is extends HistoryEvent['is']>(history: readonly HistoryEvent[], is: Is): EventOf<Is>[] =>
  history.filter((each): each is EventOf<Is> => each.is === is);

/** Events from lines of JSON; a line that is still being written is left out. Pure. */
export const parseEvents = (text: string): HistoryEvent[] => text.split('\n').slice(0, -1).map((line) => event.parse(JSON.parse(line)));

/** Events in the order of their clock. Pure. */
export const inOrder = (history: readonly HistoryEvent[]): HistoryEvent[] => history.toSorted((a, b) => a.t - b.t);

/** Whether a program is the emulator of a TPM: a child of the supervisor, which it may outlive. */
export const isTpm = (program: string): boolean => program === 'swtpm';

/** Whether a program is a machine. */
export const isQemu = (program: string): boolean => program.startsWith('qemu-system-');
