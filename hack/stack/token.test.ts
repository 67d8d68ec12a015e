import { describe, expect, test } from '@jest/globals';
import { isDue, parseClaims, tokenRequest } from './token.ts';

const want = { serviceAccount: 'strato-agent', namespace: 'strato-system', audience: 'strato-operator', node: { name: 'node-1', uid: 'u1' } };
const claims = {
  sub: 'system:serviceaccount:strato-system:strato-agent',
  aud: ['strato-operator'],
  iat: 1000,
  exp: 1600,
  'kubernetes.io': { node: { name: 'node-1', uid: 'u1' } },
};
const token = (changes: object = {}) => `h.${Buffer.from(JSON.stringify({ ...claims, ...changes })).toString('base64url')}.s`;
const at = (seconds: number) => new Date(seconds * 1000);

describe('a new token is due', () => {
  test.each([
    ['there is none', undefined, 1000],
    ['the file is no token', 'torn', 1000],
    ['the file is empty', '', 1000],
    ['half of its life is over', token(), 1300],
    ['it is of another ServiceAccount', token({ sub: 'system:serviceaccount:strato-system:strato-operator' }), 1000],
    ['it is for another audience', token({ aud: ['kubernetes'] }), 1000],
    ['the node was made anew', token({ 'kubernetes.io': { node: { name: 'node-1', uid: 'u0' } } }), 1000],
    ['it is bound to no node', token({ 'kubernetes.io': {} }), 1000],
  ])('when %s', (_, held, seconds) => {
    expect(isDue(held, want, at(seconds))).toBe(true);
  });

  test('not before half of its life', () => {
    expect(isDue(token(), want, at(1299))).toBe(false);
    expect(isDue(`${token()}\n`, want, at(1299))).toBe(false);
  });

  test('not because of a node or audience that nobody asked for', () => {
    expect(isDue(token(), { serviceAccount: 'strato-agent', namespace: 'strato-system' }, at(1299))).toBe(false);
  });
});

test('claims are read without the signature', () => {
  expect(parseClaims(token())?.exp).toBe(1600);
  expect(parseClaims('a.b.c')).toBeUndefined();
});

test('the request binds to the node only when there is one', () => {
  expect(tokenRequest(want, 600).spec).toEqual({
    audiences: ['strato-operator'],
    expirationSeconds: 600,
    boundObjectRef: { apiVersion: 'v1', kind: 'Node', name: 'node-1', uid: 'u1' },
  });
  expect(tokenRequest({ serviceAccount: 'a', namespace: 'b' }, 600).spec).toEqual({ expirationSeconds: 600 });
});
