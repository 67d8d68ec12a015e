import { expect, test } from '@jest/globals';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { makeFleet } from './fleet.ts';
import { makeHearing } from './hearing.ts';

const image: DesiredImage = { kind: 'image', uid: '11111111-2222-4333-8444-555555555555', namespace: 'default', name: 'guest', generation: 1, url: 'http://h/i', format: 'raw' };

test('a copy of an image that went and was wanted again can be ended again: it is a cache, and nothing about it is for ever', () => {
  const fleet = makeFleet(() => 0);
  const hearing = makeHearing(fleet, 'node-1');
  const { doomed } = fleet.member('node-1');
  fleet.want('node-1', image);
  fleet.doom('node-1', image.uid, 'image');
  hearing.absent(image.uid, 'image');
  expect([doomed.size, fleet.isAbsent('node-1', image.uid), fleet.isEndedForEver('node-1', image.uid)]).toEqual([0, true, false]);
  fleet.want('node-1', image);
  fleet.doom('node-1', image.uid, 'image');
  expect([...doomed.keys()]).toEqual([image.uid]);
});
