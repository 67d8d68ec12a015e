import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { openTestWeb } from '#agent/image/web/testweb.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { nowMs } from './bare.ts';
import { deskVm, openDesk } from './desk.ts';
import { atMost, beside, type Figure, quantile } from './figure.ts';

const rounds = 5;
const waiting = 20;
const limitMs = 600_000;
const run = promisify(execFile);

/**
 * The import of an image: fetched, hashed, inspected, checked, converted under confinement and taken durably into the cache, against
 * the same file from the same server by hand, in turns: by `curl` and `qemu-img convert` alone, and as a careful person does it,
 * who also compares a checksum and waits until the disk has it. 20 VMs wait for it at each import.
 */
export const benchImage = async (tell: (doing: string) => void): Promise<Figure[]> => {
  await using opened = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'strato-bench-image-'));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o755);
  tell('image: a disk full of programs is made');
  const bytes = await readFile(await makeDisk(folder));
  const web = await openTestWeb();
  opened.defer(() => web.close());
  const path = '/disk.qcow2';
  const url = web.serve(path, { is: 'bytes', bytes });
  const desk = opened.use(await openDesk());
  const strato: number[] = [];
  const byHand: ByHand[] = [];
  const fetches: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const image: DesiredImage = { kind: 'image', uid: randomUUID(), namespace: 'bench', name: 'disk', generation: 1, format: 'qcow2', url };
    const vms = Array.from({ length: waiting }, (_, at) => deskVm(`waits-${at}`, image.uid));
    const before = web.requests(path);
    const sinceMs = nowMs();
    desk.want([image, ...vms]);
    await desk.reached([image]);
    strato.push(nowMs() - sinceMs);
    await desk.reached(vms);
    fetches.push(web.requests(path) - before);
    await desk.end([...vms, image]);
    byHand.push(await importByHand(folder, url));
    tell(`image: round ${round + 1} of ${rounds}: the agent ${Math.round(strato.at(-1) ?? 0)} ms, by hand ${Math.round(byHand.at(-1)?.bareMs ?? 0)} ms, with care ${Math.round(byHand.at(-1)?.carefulMs ?? 0)} ms`);
  }
  const over = (hand: readonly number[]): number => quantile(strato, 0.5) / quantile(hand, 0.5);
  return [
    atMost('image', `import of ${Math.round(bytes.byteLength / 2 ** 20)} MiB over curl and qemu-img convert, medians`, over(byHand.map(({ bareMs }) => bareMs)), '', 1.15),
    beside('image', 'import over curl, sha256sum, qemu-img convert and sync, medians', over(byHand.map(({ carefulMs }) => carefulMs)), ''),
    beside('image', 'import, median', quantile(strato, 0.5), 'ms'),
    atMost('image', `fetches for ${waiting} VMs that wait`, Math.max(...fetches), '', 1),
  ];
};

/** A compressed qcow2 of a file system full of programs and libraries, as cloud images are; of about 300 MiB. Programs: mke2fs, qemu-img. */
const makeDisk = async (folder: string): Promise<string> => {
  const [raw, disk] = [join(folder, 'disk.raw'), join(folder, 'disk.qcow2')];
  await run('mke2fs', ['-q', '-t', 'ext4', '-L', 'root', '-d', '/usr/lib/x86_64-linux-gnu', raw, '1200M']);
  await run('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, disk]);
  await rm(raw);
  return disk;
};

/** How long a person takes: who does the least, and who also compares a checksum and syncs the result. */
type ByHand = { bareMs: number; carefulMs: number };

const importByHand = async (folder: string, url: string): Promise<ByHand> => {
  const [fetched, converted] = [join(folder, 'fetched'), join(folder, 'converted.qcow2')];
  const signal = AbortSignal.timeout(limitMs);
  const timed = async (file: string, ...args: string[]): Promise<number> => {
    const sinceMs = nowMs();
    await run(file, args, { signal });
    return nowMs() - sinceMs;
  };
  const curlMs = await timed('curl', '-sS', '--fail', '-o', fetched, url);
  const sumMs = await timed('sha256sum', fetched);
  const convertMs = await timed('qemu-img', 'convert', '-f', 'qcow2', '-O', 'qcow2', fetched, converted);
  const syncMs = await timed('sync', converted);
  await rm(fetched);
  await rm(converted);
  return { bareMs: curlMs + convertMs, carefulMs: curlMs + sumMs + convertMs + syncMs };
};
