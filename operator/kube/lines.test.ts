import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { jsonLines } from './lines.ts';

const read = async (chunks: Uint8Array[], end?: Error): Promise<unknown[]> => {
  const values: unknown[] = [];
  const source = async function* () {
    yield* chunks;
    if (end !== undefined) throw end;
  };
  try {
    for await (const value of jsonLines(source(), 'WATCH x')) values.push(value);
  } catch (thrown) {
    values.push(Error.isError(thrown) && 'code' in thrown ? thrown.code : thrown);
  }
  return values;
};
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe('lines of a watch', () => {
  test('wherever the chunks are cut, in the middle of a character too, the values are the same', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.jsonValue(), { maxLength: 5 }), fc.array(fc.nat(200), { maxLength: 8 }), async (values, cuts) => {
      const whole = bytes(values.map((value) => `${JSON.stringify(value)}\n`).join(''));
      const places = [0, ...cuts.map((cut) => Math.min(cut, whole.length)).sort((a, b) => a - b), whole.length];
      const chunks = places.slice(1).map((place, index) => whole.subarray(places[index], place));
      expect(await read(chunks)).toEqual(JSON.parse(JSON.stringify(values)));
    }));
  });

  test.each<[string, Uint8Array[], Error | undefined]>([
    ['the end in the middle of a line', [bytes('{"a":1}\n{"b"')], undefined],
    ['a connection that breaks between lines', [bytes('{"a":1}\n')], new Error('ECONNRESET')],
    ['a connection that breaks in a line', [bytes('{"a":1}\n{"b"')], new Error('ECONNRESET')],
    ['a line that is not JSON', [bytes('{"a":1}\nnonsense\n')], undefined],
    ['bytes that are not UTF-8', [bytes('{"a":1}\n'), Uint8Array.of(0xff, 0xfe, 0x0a)], undefined],
  ])('%s is StreamCut, after the whole lines', async (_what, chunks, end) => {
    expect(await read(chunks, end)).toEqual([{ a: 1 }, 'StreamCut']);
  });

  test('a line without end is not gathered for ever', async () => {
    const megabyte = new Uint8Array(1024 * 1024).fill(0x61);
    expect(await read(Array.from({ length: 18 }, () => megabyte))).toEqual(['StreamCut']);
  });
});
