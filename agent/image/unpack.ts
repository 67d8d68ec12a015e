import { type FileHandle, open } from 'node:fs/promises';
import { asFault, Fault } from '#crds/kit/fault.ts';
import { errnoOf } from '../storage/durable.ts';
import type { ConvertLimits } from './convert.ts';
import { refused } from './inspect/refused.ts';
import { paceOf } from './pace.ts';
import { makeSparseWriter } from './sparse.ts';
import { startConfined, type ToolEnd } from './tool.ts';

/** How a file may be compressed. */
export type Packing = 'gzip' | 'xz' | 'zstd';

/** What to unpack: `source`, a file, into `sink`, an empty one. `directory` is entered by the tool. */
export type UnpackTask = {
  packing: Packing;
  source: string;
  sink: FileHandle;
  directory: string;
  unixId: number;
  limits: ConvertLimits;
  /** The most that may come out. */
  maxBytes: number;
  /** Throws NoSpace when the file system has no room for more. */
  checkSpace: () => Promise<void>;
};

const magics: readonly [packing: Packing, magic: string][] = [
  ['gzip', '\x1f\x8b\x08'],
  ['xz', '\xfd7zXZ\0'],
  ['zstd', '\x28\xb5\x2f\xfd'],
  // A frame to be skipped: pzstd begins with one. LZ4 knows them, too, and zstd refuses what follows then.
  ['zstd', '\x50\x2a\x4d\x18'],
];

/** How a file is compressed, by its first bytes; undefined when it is not. Pure. Sources: RFC 1952, RFC 8878, the .xz file format. */
export const packingOf = (head: Uint8Array): Packing | undefined => {
  const text = Buffer.from(head.buffer, head.byteOffset, Math.min(head.byteLength, 6)).toString('latin1');
  return magics.find(([, magic]) => text.startsWith(magic))?.[0];
};

// The tools and not node:zlib: it ends without a word after the first frame of a zstd file that has several (Node 24), and
// hostile bytes are better read by a process that may do nothing. 2 of gzip: all is right, but something follows.
const tools: Readonly<Record<Packing, { argv: readonly string[]; good: readonly number[]; from: string }>> = {
  gzip: { argv: ['gzip', '--decompress', '--stdout'], good: [0, 2], from: 'gzip' },
  xz: { argv: ['xz', '--decompress', '--stdout', '--format=xz', '--memlimit-decompress=512MiB'], good: [0], from: 'xz-utils' },
  zstd: { argv: ['zstd', '--decompress', '--stdout', '--quiet', '--memory=512MiB'], good: [0], from: 'zstd' },
};

const spaceCheckBytes = 64 * 1024 * 1024;
// Of exec(3) as the shell and util-linux tell it.
const notFound = 127;

/**
 * Unpacks a compressed file as an unprivileged user, under limits; what is zero becomes holes. Faults:
 * ImageRefused (damaged, or more comes out than `maxBytes`), NoSpace, UnpackFailed (all else; later).
 */
export const unpack = async (task: UnpackTask, signal: AbortSignal): Promise<void> => {
  const { packing, limits, maxBytes, sink } = task;
  const { argv, good, from } = tools[packing];
  using pace = paceOf(limits.deadlineMs);
  const { late } = pace;
  const over = new AbortController();
  await using source = await open(task.source, 'r');
  const to = { unixId: task.unixId, addressSpaceBytes: limits.addressSpaceBytes, fileBytes: 0, cpuSeconds: limits.cpuSeconds };
  const tookTooLong = () => new Fault('UnpackFailed', `unpacking the image got no further for longer than ${limits.deadlineMs / 1000} s`);
  const tool = await startConfined(argv, to, task.directory, source.fd, AbortSignal.any([signal, late, over.signal])).catch((thrown: unknown) => {
    throw late.aborted && !signal.aborted ? tookTooLong() : thrown;
  });
  const writer = makeSparseWriter(sink);
  try {
    let checked = 0;
    for await (const part of tool.stdout) {
      if (!Buffer.isBuffer(part)) continue;
      if (writer.sizeBytes() + part.byteLength > maxBytes) refused(`unpacked it is larger than ${maxBytes} bytes, the most that this node takes`);
      await writer.write(part);
      pace.moved();
      if (writer.writtenBytes() - checked < spaceCheckBytes) continue;
      checked = writer.writtenBytes();
      await task.checkSpace();
    }
    await writer.finish();
  } catch (thrown) {
    over.abort();
    await tool.end;
    signal.throwIfAborted();
    throw asFault(thrown, errnoOf(thrown) === 'ENOSPC' ? 'NoSpace' : 'UnpackFailed', 'unpacking the image');
  }
  const end = await tool.end;
  signal.throwIfAborted();
  if (late.aborted) throw tookTooLong();
  if (end.code === undefined || !good.includes(end.code)) throw faultOf(packing, from, end);
};

const faultOf = (packing: Packing, from: string, { code, signal, said }: ToolEnd): Fault => {
  if (code === notFound) return new Fault('UnpackFailed', `the image is compressed by ${packing}, and the node has no ${packing}: install the package ${from}`);
  const what = `${packing} ended with ${code === undefined ? signal : `code ${code}`}${said === '' ? '' : `: ${said}`}`;
  return code === 1 ? new Fault('ImageRefused', `the image is refused: it can not be unpacked: ${what}`, { retry: 'never' }) : new Fault('UnpackFailed', `unpacking the image: ${what}`);
};
