import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { desireDigest } from './desired.ts';
import { type Parsed, parseFrame, writeFrame } from './frame.ts';
import { toAgent, type ToAgent, toOperator, type ToOperator } from './messages.ts';

// Frames as peers of earlier versions write them. A file is never changed; a new version of a frame is a new file.
const folder = join(import.meta.dirname, 'golden');
const files = readdirSync(folder);
const textOf = (file: string): string => readFileSync(join(folder, file), 'utf8').trimEnd();
const read = (file: string): Parsed<ToAgent | ToOperator> =>
  (file.startsWith('toagent_') ? parseFrame<ToAgent>(toAgent, textOf(file)) : parseFrame<ToOperator>(toOperator, textOf(file)));

test.each(files)('%s is read whole, and what is written of it is the same', (file) => {
  const parsed = read(file);
  expect(parsed).toMatchObject({ is: 'message' });
  expect(parsed.is === 'message' && JSON.parse(writeFrame(parsed.message))).toEqual(JSON.parse(textOf(file)));
});

test('there is one of every frame', () => {
  const typesOf = (prefix: string) => new Set(files.filter((file) => file.startsWith(prefix)).map((file) => /_([a-z]+)/.exec(file)?.[1]));
  const known = (options: readonly { shape: { type: { value: string } } }[]) => new Set(options.map(({ shape }) => shape.type.value));
  expect([typesOf('toagent_'), typesOf('tooperator_')]).toEqual([known(toAgent.options), known(toOperator.options)]);
});

// Two sides of different versions compare digests: that of an old desire must stay what it was.
test.each([
  ['toagent_desire-vm-v1.json', 'ee8b6acd77af419b9a37b34510659ba67d1d4c536b96c2b669a16b2a560bec09'],
  ['toagent_desire-image-v1.json', '759dad5943247b1bc7fab6c42f07911baf1d98443649ca7b968338f4dc963294'],
])('the digest of %s stays', (file, digest) => {
  const parsed = read(file);
  expect(parsed.is === 'message' && parsed.message.type === 'desire' && desireDigest(parsed.message.object)).toBe(digest);
});
