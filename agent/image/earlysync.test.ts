import { describe, expect, test } from '@jest/globals';
import { syncEarly } from './earlysync.ts';

const disk = () => {
  const done: string[] = [];
  const waiting: PromiseWithResolvers<void>[] = [];
  const file = {
    datasync: () => {
      done.push('early');
      const turn = Promise.withResolvers<void>();
      waiting.push(turn);
      return turn.promise;
    },
    sync: async () => void done.push('last'),
  };
  return { done, file, answer: () => waiting.shift()?.resolve(), fail: (why: string) => waiting.shift()?.reject(new Error(why)) };
};

describe('syncing a file early', () => {
  test('asks the disk once at a time, and at the end for all', async () => {
    const it = disk();
    const early = syncEarly(it.file);
    early.more();
    early.more();
    expect(it.done).toEqual(['early']);
    const end = early.end();
    it.answer();
    await end;
    expect(it.done).toEqual(['early', 'last']);
  });

  test('a write that failed early fails the end, though the last sync has nothing to say', async () => {
    const it = disk();
    const early = syncEarly(it.file);
    early.more();
    it.fail('EIO');
    await expect(early.end()).rejects.toThrow('EIO');
    await expect(early.end()).rejects.toThrow('EIO');
  });
});
