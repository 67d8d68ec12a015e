import { describe, expect, test } from '@jest/globals';
import type { ObservedVm } from '#crds/wire/observed.ts';
import { uidOf } from './bed.ts';
import { makeMisunderstood } from './misunderstood.ts';

const running: ObservedVm = { kind: 'vm', uid: uidOf(1), generation: 3, epoch: 1, digest: 'd', state: 'running', disks: [], forwards: [] };
const trouble = { reason: 'AgentTooOld', message: expect.stringMatching(/version 1\.2\.3.*object\.colour: unknown.*update it/), final: false };

describe('a desire that an agent can not read', () => {
  test('is told with the report of its VM, until one can be read; others are told as they are', () => {
    const foreign = makeMisunderstood('1.2.3');
    expect(foreign.note(uidOf(1), 'object.colour: unknown', { ...running })).toEqual({ ...running, trouble });
    expect([foreign.told({ ...running }), foreign.told({ ...running, uid: uidOf(2) })]).toEqual([{ ...running, trouble }, { ...running, uid: uidOf(2) }]);
    expect([foreign.clear(uidOf(1)), foreign.clear(uidOf(1)), foreign.told({ ...running })]).toEqual([true, false, running]);
  });

  test('of a VM that is not here yet is told as well', () => {
    expect(makeMisunderstood('1.2.3').note(uidOf(1), 'object.colour: unknown', undefined)).toMatchObject({ uid: uidOf(1), state: 'preparing', digest: '', trouble });
  });
});
