import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { parseFrame, writeFrame } from './frame.ts';
import { maxFrameBytes, toAgent, type ToAgent, toOperator } from './messages.ts';

const node = z.looseObject({ type: z.string().optional(), maxLength: z.number().optional(), maxItems: z.number().optional(), pattern: z.string().optional() });
const record = z.record(z.string(), z.unknown());
const list = z.array(z.unknown());

/** Most bytes of JSON that a schema admits: a character of text takes at most six. Infinite without a bound. */
const largest = (schema: unknown): number => {
  const { type, maxLength, maxItems, pattern, ...rest } = node.parse(schema);
  const choices = list.safeParse(rest['oneOf'] ?? rest['anyOf']).data;
  if (choices) return Math.max(...choices.map(largest));
  const words = list.safeParse(rest['enum'] ?? (rest['const'] === undefined ? undefined : [rest['const']])).data;
  if (words) return Math.max(...words.map((word) => JSON.stringify(word).length));
  switch (type) {
    case 'object':
      return Object.entries(record.parse(rest['properties'])).reduce((sum, [name, member]) => sum + name.length + 4 + largest(member), 2);
    case 'array':
      return 2 + (maxItems ?? Infinity) * (1 + largest(rest['items']));
    case 'string':
      return 2 + 6 * (maxLength ?? (pattern !== undefined && !/[*+]/.test(pattern) ? 64 : Infinity));
    case 'integer':
    case 'boolean':
      return 24;
    case undefined:
    default:
      return Infinity;
  }
};

describe('a frame', () => {
  const said = toOperator.options.filter((option) => option.shape.type.value !== 'holding');
  test.each(said.map((option) => [option.shape.type.value, option] as const))('%s of an agent fits, whatever is in it', (_type, option) => {
    expect(largest(z.toJSONSchema(option))).toBeLessThan(maxFrameBytes);
  });

  const welcome: ToAgent = { type: 'welcome', protocol: 1, leaderEpoch: 4, node: 'n' };
  const frame = (text: string) => parseFrame<ToAgent>(toAgent, text);

  test('is read as it was written, also when its sender knows more', () => {
    const newer = { ...welcome, mood: 'good' };
    expect(frame(writeFrame(newer))).toEqual({ is: 'message', message: welcome });
  });

  test.each([
    ['of a type that nobody knows', '{"type":"song"}', { is: 'unknown', type: 'song' }],
    ['without a type', '{"kind":"welcome"}', { is: 'bad', why: expect.stringContaining('type') }],
    ['of no object', '"welcome"', { is: 'bad', why: expect.stringContaining('type') }],
    ['that is no JSON', '{', { is: 'bad', why: expect.stringContaining('JSON') }],
    ['that breaks a rule', '{"type":"welcome","protocol":1,"leaderEpoch":0,"node":"n"}', { is: 'bad', why: expect.stringContaining('welcome: leaderEpoch') }],
    ['that is too long', ' '.repeat(maxFrameBytes + 1), { is: 'bad', why: expect.stringContaining('larger than') }],
  ])('%s is told apart', (_, text, parsed) => {
    expect(frame(text)).toEqual(parsed);
  });
});
