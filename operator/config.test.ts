import { expect, test } from '@jest/globals';
import { parseConfig } from './config.ts';

const good = { STRATO_TLS_CERT_FILE: '/c', STRATO_TLS_KEY_FILE: '/k' };

test('defaults fill in what is not given', () => {
  expect(parseConfig(good, 'pod-1')).toMatchObject({ namespace: 'strato-system', agentListen: { host: '0.0.0.0', port: 8443 }, identity: 'pod-1', kubeconfig: undefined });
});

test.each([
  ['a missing file', { STRATO_TLS_KEY_FILE: '/k' }, 'STRATO_TLS_CERT_FILE=(unset)'],
  ['a bad address', { ...good, STRATO_AGENT_LISTEN: '8443' }, 'STRATO_AGENT_LISTEN=8443: must be HOST:PORT'],
  ['a port out of range', { ...good, STRATO_HTTP_LISTEN: 'h:99999' }, 'STRATO_HTTP_LISTEN=h:99999'],
  ['a level that does not exist', { ...good, STRATO_LOG_LEVEL: 'loud' }, 'STRATO_LOG_LEVEL=loud'],
  ['an unknown variable', { ...good, STRATO_COLOUR: 'red' }, 'STRATO_COLOUR'],
])('%s is refused by name', (_, env, words) => {
  expect(() => parseConfig(env, 'h')).toThrow(words);
});
