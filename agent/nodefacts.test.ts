import { expect, test } from '@jest/globals';
import { makeNodeFacts } from './nodefacts.ts';
import { nodeWorld, openBench } from './vm/bed.ts';

test('a storage that does not answer is not asked again meanwhile: each question takes one of the few threads', async () => {
  const { hands } = await openBench(nodeWorld());
  const answer = Promise.withResolvers<{ sizeMiB: number; freeMiB: number }>();
  let asked = 0;
  const storage = { ...hands.storage, space: () => { asked += 1; return answer.promise; } };
  const node = { agentVersion: '0', kernel: 'k', os: 'o', architecture: 'amd64' as const, bootId: 'b', cpus: 1, memoryMiB: 1 };
  const facts = makeNodeFacts({ node, hypervisor: hands.hypervisor, network: hands.network, storage }, hands.ledger, new AbortController().signal);
  const measured = [facts.measure(), facts.measure()];
  expect(asked).toBe(1);
  answer.resolve({ sizeMiB: 7, freeMiB: 1 });
  await Promise.all(measured);
  expect(facts.now().capacity.storageMiB).toBe(7);
  await facts.measure();
  expect(asked).toBe(2);
});
