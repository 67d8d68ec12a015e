import { expect, test } from '@jest/globals';
import { epochFor } from './epoch.ts';

test.each([
  ['has seen an older one is commanded under ours', undefined, 4, { leaderEpoch: 5, fence: false }],
  ['has never seen one, likewise', undefined, 0, { leaderEpoch: 5, fence: false }],
  ['has seen ours from us, likewise', { agentId: 'a', leaderEpoch: 5 }, 5, { leaderEpoch: 5, fence: false }],
  ['has seen ours from somebody else needs one above it, and a fence', undefined, 5, { leaderEpoch: 6, fence: true }],
  ['has seen ours, but we spoke to another agent of its node, likewise', { agentId: 'b', leaderEpoch: 5 }, 5, { leaderEpoch: 6, fence: true }],
  ['has seen a newer one needs one above that, and a fence', { agentId: 'a', leaderEpoch: 5 }, 8, { leaderEpoch: 9, fence: true }],
  ['was raised above ours by us stays there', { agentId: 'a', leaderEpoch: 9 }, 9, { leaderEpoch: 9, fence: false }],
  ['was raised by us and has not heard of it, likewise', { agentId: 'a', leaderEpoch: 9 }, 8, { leaderEpoch: 9, fence: false }],
  ['was raised by us and has heard a newer one since needs one above that, and a fence', { agentId: 'a', leaderEpoch: 9 }, 10, { leaderEpoch: 11, fence: true }],
])('an agent that %s', (_, spoke, leaderEpochSeen, expected) => {
  expect(epochFor(spoke, { agentId: 'a', leaderEpochSeen }, 5)).toEqual(expected);
});
