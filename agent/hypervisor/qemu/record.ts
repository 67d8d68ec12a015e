import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { uid } from '#crds/wire/desired.ts';
import type { Paths } from '../../host/paths.ts';
import { errnoOf, writeWhole } from '../../storage/durable.ts';
import type { RunEnd } from '../driver.ts';
import { startFile } from './launcher.ts';
import { endOf, parseEvents, type QemuEvent } from './events.ts';

const version = 1;

/** What is written down of a start before there is a process. `facts` are those of the machine that the start makes. */
const startRecord = z.strictObject({
  version: z.literal(version),
  uid,
  startId: z.string().regex(/^[A-Za-z0-9-]{1,64}$/),
  epoch: z.int(),
  bootId: z.string(),
  /** Kills for memory in the VM's group before this start. */
  oomKills: z.int().min(0).default(0),
  facts: z.strictObject({ type: z.string(), cpuModel: z.string(), accelerator: z.enum(['kvm', 'hvf', 'tcg']), cpus: z.int(), memoryMiB: z.int(), why: z.string().optional() }),
});

/** What is written down of a start. */
export type StartRecord = z.output<typeof startRecord>;

const root = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };

/** Writes down a start; the run's directory must be there. */
export const writeStart = async (paths: Paths, record: Omit<StartRecord, 'version'>): Promise<void> => {
  const text = `${JSON.stringify({ version, ...record })}\n`;
  await writeWhole(join(paths.run(record.uid, record.startId), startFile), root, (handle) => handle.writeFile(text));
};

/**
 * The run that has the VM's lock, or had it last: the launcher wrote its id under that lock. Undefined when there never was
 * one. Fault RunUnreadable when it can not be told: unknown is not empty.
 */
export const readRun = async (paths: Paths, of: string): Promise<StartRecord | undefined> => {
  const startId = await readIfThere(paths.runPointer(of));
  if (startId === undefined) return undefined;
  try {
    const id = startRecord.shape.startId.parse(startId.trim());
    return startRecord.parse(JSON.parse(await readFile(join(paths.run(of, id), startFile), 'utf8')));
  } catch (cause) {
    throw new Fault('RunUnreadable', `what was written of the run ${JSON.stringify(startId.trim().slice(0, 64))} of VM ${of} can not be read: ${messageOf(cause)}`, { cause });
  }
};

/** What QEMU has told of a run; the middle of a long record is passed over. */
export const readEvents = async (paths: Paths, of: string, startId: string): Promise<QemuEvent[]> => parseEvents(await readEnds(join(paths.run(of, startId), 'events')));

/** How a run ended that has the lock no more. `oomKills`: kills for memory in the VM's group by now. */
export const readEnd = async (paths: Paths, { uid: of, startId, bootId, oomKills: before }: StartRecord, bootIdNow: string, oomKills: number): Promise<RunEnd> => {
  const run = paths.run(of, startId);
  const [events, exit, stderr] = await Promise.all([readEvents(paths, of, startId), readIfThere(join(run, 'exit')), readEnds(join(run, 'stderr'))]);
  return endOf({ startId, rebooted: bootId !== bootIdNow, events, exit, oom: oomKills > before, stderr: stderr.slice(-tailChars) });
};

/** Whether QEMU has answered what the launcher told it before anything else: from then on its events are recorded. */
export const recordsEvents = async (paths: Paths, of: string, startId: string): Promise<boolean> =>
  (await readEnds(join(paths.run(of, startId), 'events'))).split('\n').slice(0, -1).some((line) => {
    const said = reply.safeParse(jsonOf(line));
    return said.success && said.data.id === 'capabilities';
  });

const reply = z.object({ id: z.string(), return: z.object({}) });

const jsonOf = (line: string): unknown => {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
};

const readIfThere = async (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return undefined;
    throw thrown;
  });

/** The last lines of a file, at most 2 KiB; empty when it is not there. */
export const readTail = async (file: string): Promise<string> => (await readEnds(file)).slice(-tailChars);

const tailChars = 2048;
const endBytes = 256 * 1024;

/** The beginning and the end of a file that a guest may have made long; empty when it is not there. */
const readEnds = async (file: string): Promise<string> => {
  const handle = await open(file, 'r').catch((thrown: unknown) => {
    if (errnoOf(thrown) === 'ENOENT') return undefined;
    throw thrown;
  });
  if (!handle) return '';
  try {
    const { size } = await handle.stat();
    const read = async (from: number): Promise<string> => {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(Math.min(endBytes, size)), 0, Math.min(endBytes, size), from);
      return buffer.toString('utf8', 0, bytesRead);
    };
    return size <= 2 * endBytes ? (await handle.readFile('utf8')) : `${await read(0)}\n${await read(size - endBytes)}`;
  } finally {
    await handle.close();
  }
};
