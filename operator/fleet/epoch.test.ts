import { expect, test } from '@jest/globals';
import { mustRaise } from './epoch.ts';

test.each([
  ['has seen an older one', undefined, 4, undefined],
  ['has never seen one', undefined, 0, undefined],
  ['has seen ours from us', { agentId: 'a', leaderEpoch: 5 }, 5, undefined],
  ['has seen ours from somebody else', undefined, 5, 5],
  ['has seen ours, but we spoke to another agent of its node', { agentId: 'b', leaderEpoch: 5 }, 5, 5],
  ['has seen ours, but we spoke to it under an older one', { agentId: 'a', leaderEpoch: 4 }, 5, 5],
  ['has seen a newer one', { agentId: 'a', leaderEpoch: 5 }, 8, 8],
])('an agent that %s', (_, spoke, leaderEpochSeen, raised) => {
  expect(mustRaise(spoke, { agentId: 'a', leaderEpochSeen }, 5)).toBe(raised);
});
