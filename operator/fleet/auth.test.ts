import { describe, expect, test } from '@jest/globals';
import { Fault } from '#crds/kit/fault.ts';
import { type Kube, KubeFault } from '../kube/kube.ts';
import { authenticate } from './auth.ts';

const kubeOf = (answer: (body: unknown) => unknown): Kube => ({
  request: async (_, __, options) => answer(options?.body),
  stream: () => { throw new Error('no watch in this test'); },
});

describe('the credential of an agent', () => {
  const payload = Buffer.from(JSON.stringify({ exp: 2_000_000_000 })).toString('base64url');
  const token = `x.${payload}.y`;
  const extra = { 'authentication.kubernetes.io/node-name': ['node-1'], 'authentication.kubernetes.io/node-uid': ['nu'] };
  const good = { authenticated: true, audiences: ['strato-operator'], user: { username: 'system:serviceaccount:strato-system:strato-agent', extra } };

  test('names its node, by the node claim alone', async () => {
    const asked: unknown[] = [];
    const kube = kubeOf((body) => { asked.push(body); return { status: good }; });
    expect(await authenticate(kube, 'strato-system', token)).toEqual({ node: 'node-1', nodeUid: 'nu', expiresAt: new Date(2_000_000_000_000) });
    expect(asked).toMatchObject([{ spec: { token, audiences: ['strato-operator'] } }]);
  });

  test.each([
    ['that is not valid', { authenticated: false }],
    ['of another audience', { ...good, audiences: ['other'] }],
    ['without an audience (an ordinary API token)', { ...good, audiences: [] }],
    ['of another ServiceAccount', { ...good, user: { ...good.user, username: 'system:serviceaccount:strato-system:default' } }],
    ['of the same name in another namespace', { ...good, user: { ...good.user, username: 'system:serviceaccount:evil:strato-agent' } }],
    ['without a node claim', { ...good, user: { ...good.user, extra: {} } }],
    ['without a node uid', { ...good, user: { ...good.user, extra: { 'authentication.kubernetes.io/node-name': ['node-1'] } } }],
    ['with two nodes', { ...good, user: { ...good.user, extra: { ...extra, 'authentication.kubernetes.io/node-name': ['node-1', 'node-2'] } } }],
  ])('%s is refused', async (_, status) => {
    await expect(authenticate(kubeOf(() => ({ status })), 'strato-system', token)).rejects.toMatchObject({ code: 'Unauthenticated', retry: 'never' });
  });

  test('is not judged when the API server does not answer', async () => {
    const kube = kubeOf(() => { throw new KubeFault('review', { status: 0, message: 'refused' }); });
    await expect(authenticate(kube, 'strato-system', token)).rejects.toMatchObject({ code: 'ApiServerUnreachable' });
    await expect(authenticate(kube, 'strato-system', token)).rejects.toBeInstanceOf(Fault);
  });
});
