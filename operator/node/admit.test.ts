import { describe, expect, test } from '@jest/globals';
import { type HypervisorNode, hypervisorNode } from '#crds/v1alpha1/hypervisornode.ts';
import { type Kube, KubeFault } from '../kube/kube.ts';
import { ensureNode, judgeIdentity } from './admit.ts';

const node = (agentId?: string, annotations: Record<string, string> = {}): HypervisorNode => hypervisorNode.parse({
  metadata: { name: 'node-1', uid: 'u', resourceVersion: '1', annotations },
  ...(agentId === undefined ? {} : { status: { observedGeneration: 1, agentId } }),
});

const kubeOf = (answer: (method: string, path: string, body: unknown) => unknown): Kube => ({
  request: async (method, path, options) => answer(method, path, options?.body),
  stream: () => { throw new Error('no watch in this test'); },
});

describe('the identity of an agent', () => {
  test.each([
    ['the first one', node(), 'welcome'],
    ['the recorded one', node('mine'), 'welcome'],
    ['another one', node('other'), 'conflict'],
    ['another one that an administrator accepted', node('other', { 'strato.dev/accept-agent': 'mine' }), 'welcome'],
  ])('%s', (_, recorded, verdict) => {
    expect(judgeIdentity(recorded, 'mine').is).toBe(verdict);
  });

  test('is judged although the rest of the node\'s object can not be read', async () => {
    const odd = { metadata: { name: 'node-1', uid: 'u', resourceVersion: '1' }, spec: { schedulable: 'maybe' }, status: { agentId: 'mine', accelerators: ['abacus'] } };
    const read = await ensureNode(kubeOf(() => odd), 'node-1');
    expect([judgeIdentity(read, 'mine').is, judgeIdentity(read, 'other').is]).toEqual(['welcome', 'conflict']);
    await expect(ensureNode(kubeOf(() => ({ ...odd, status: { agentId: 7 } })), 'node-1')).rejects.toThrow();
  });

  test('a new node is made, also when another operator was quicker', async () => {
    const calls: string[] = [];
    const kube = kubeOf((method) => {
      calls.push(method);
      if (method === 'POST') throw new KubeFault('create', { status: 409, reason: 'AlreadyExists', message: 'it is there' });
      if (calls.length === 1) throw new KubeFault('get', { status: 404, message: 'no' });
      return node();
    });
    expect((await ensureNode(kube, 'node-1')).metadata.name).toBe('node-1');
    expect(calls).toEqual(['GET', 'POST', 'GET']);
  });
});
