// A conversion on a slow machine: the confinement is real, qemu-img is not. Needs root.
import { chmod, chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { convert } from './convert.ts';

const unixId = 100_777;
const path = process.env.PATH ?? '';
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'strato-convert-'));
  await chmod(folder, 0o755);
  await mkdir(join(folder, 'work'));
  await chown(join(folder, 'work'), 0, unixId);
  process.env.PATH = `${folder}:${path}`;
});
afterEach(async () => {
  process.env.PATH = path;
  await rm(folder, { recursive: true });
});

const convertBy = async (script: string): Promise<number[]> => {
  await writeFile(join(folder, 'qemu-img'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const percents: number[] = [];
  await convert({
    directory: join(folder, 'work'), format: 'raw', virtualSizeBytes: 1024 * 1024, laidOut: false, unixId,
    limits: { deadlineMs: 3_000, addressSpaceBytes: 2 ** 31, cpuSeconds: 60 }, progress: (percent) => void percents.push(percent),
  }, AbortSignal.timeout(120_000));
  return percents;
};

test('that goes on is never too slow', async () => {
  expect(await convertBy('for percent in 20 40 60 80 100; do printf "    (%s.00/100%%)\\r" "$percent"; sleep 1; done')).toEqual([20, 40, 60, 80, 100]);
});

test('of which nothing comes any more is ended, and tried again', async () => {
  await expect(convertBy('printf "    (20.00/100%%)\\r"; exec sleep 60')).rejects.toMatchObject({ code: 'ConvertFailed', retry: 'later', message: expect.stringContaining('longer than 3 s') });
});

test.each([
  ['reading', 'Input/output error', 'ImageRefused', 'never'], ['writing', 'No space left on device', 'ConvertFailed', 'later'], ['writing', 'Input/output error', 'ConvertFailed', 'later'],
] as const)('that fails by %s (%s) says something of the image, or of the node for a moment', async (what, why, code, retry) => {
  await expect(convertBy(`echo 'qemu-img: error while ${what} at byte 65536: ${why}' >&2; exit 1`)).rejects.toMatchObject({ code, retry, message: expect.stringContaining(why) });
});
