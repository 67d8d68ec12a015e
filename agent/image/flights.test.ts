import { describe, expect, test } from '@jest/globals';
import { makeFlights } from './flights.ts';

const never = new AbortController().signal;

describe('one effort for many', () => {
  test('is made once; the others hear of it and get nothing', async () => {
    const share = makeFlights();
    const { promise, resolve } = Promise.withResolvers<string>();
    const heard: string[] = [];
    let told = (_percent: number): void => {};
    let made = 0;
    const all = ['a', 'b', 'c'].map((who) => share('key', (percent) => heard.push(`${who} ${percent}`), never, (tell) => {
      made += 1;
      told = tell;
      return promise;
    }));
    told(50);
    resolve('content');
    expect(await Promise.all(all)).toEqual(['content', undefined, undefined]);
    expect([made, heard]).toEqual([1, ['a 50', 'b 50', 'c 50']]);
  });

  test('is made by one of those who waited when it failed, and by one only', async () => {
    const share = makeFlights();
    const first = Promise.withResolvers<string>();
    let atOnce = 0;
    let most = 0;
    const act = async (): Promise<string> => {
      atOnce += 1;
      most = Math.max(most, atOnce);
      await new Promise((resolve) => setImmediate(resolve));
      atOnce -= 1;
      return 'content';
    };
    const failing = share('key', () => {}, never, () => first.promise);
    const others = Array.from({ length: 5 }, async () => (await share('key', () => {}, never, act)) ?? (await share('key', () => {}, never, act)));
    first.reject(new Error('no'));
    await expect(failing).rejects.toThrow('no');
    expect((await Promise.all(others)).filter((each) => each === 'content')).toHaveLength(1);
    expect(most).toBe(1);
  });

  test('is left by who is aborted, and goes on', async () => {
    const share = makeFlights();
    const { promise, resolve } = Promise.withResolvers<string>();
    const leading = share('key', () => {}, never, () => promise);
    const controller = new AbortController();
    const leaving = share('key', () => {}, controller.signal, () => promise);
    controller.abort(new Error('left'));
    await expect(leaving).rejects.toThrow('left');
    resolve('content');
    expect(await leading).toBe('content');
  });
});
