import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { handClock } from '../loop/handclock.ts';
import { makeFakeKube } from './fake.ts';
import { fakeKinds } from './fakekinds.ts';
import { heartbeatName, makeHeartbeats } from './heartbeat.ts';
import { isNotFound } from './kube.ts';
import { leases, pathOf } from './resource.ts';

const lease = z.object({ spec: z.object({ renewTime: z.iso.datetime({ offset: true }) }) });

const lab = () => {
  const clock = handClock();
  const kube = makeFakeKube(Object.values(fakeKinds), clock.now);
  const beats = makeHeartbeats({ kube, namespace: 'ns', clock });
  const writes = () => kube.requests.filter(({ method }) => method !== 'GET').map(({ method }) => method);
  const renewedMs = async (node: string): Promise<number | undefined> => {
    const read = await kube.request('GET', pathOf(leases, { namespace: 'ns', name: heartbeatName(node) })).catch((thrown: unknown) => {
      if (!isNotFound(thrown)) throw thrown;
      return undefined;
    });
    return read === undefined ? undefined : Date.parse(lease.parse(read).spec.renewTime);
  };
  return { clock, kube, beats, writes, renewedMs };
};

describe('the Lease of a node', () => {
  test('is made at the first beat and renewed by later ones', async () => {
    const { clock, beats, writes, renewedMs } = lab();
    await beats.beat('node-1');
    expect(await renewedMs('node-1')).toBe(clock.now().getTime());
    await clock.advance(10_000);
    await beats.beat('node-1');
    expect(writes()).toEqual(['PATCH', 'POST', 'PATCH']);
    expect([await renewedMs('node-1'), await renewedMs('node-2')]).toEqual([clock.now().getTime(), undefined]);
  });

  test('a burst of frames is one beat, also while that is being written', async () => {
    const { beats, writes } = lab();
    await Promise.all([1, 2, 3, 4].map(() => beats.beat('node-1')));
    expect(writes()).toEqual(['PATCH', 'POST']);
  });

  test('a beat that could not be written is written by the next frame', async () => {
    const { clock, kube, beats, renewedMs } = lab();
    kube.fail({ failure: { status: 500, message: 'boom' } });
    await expect(beats.beat('node-1')).rejects.toThrow('boom');
    await beats.beat('node-1');
    expect(await renewedMs('node-1')).toBe(clock.now().getTime());
  });

  test('has a name of its own for every node, however long that is named', () => {
    const names = [`${'a'.repeat(249)}x`, `${'a'.repeat(249)}y`, 'node-1'].map(heartbeatName);
    expect(new Set(names).size).toBe(3);
    expect(z.array(z.string().max(253)).safeParse(names).success).toBe(true);
  });
});
