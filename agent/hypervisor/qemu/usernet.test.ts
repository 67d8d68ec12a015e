import { expect, test } from '@jest/globals';
import { isEstablished } from './usernet.ts';

const said = (state: string) => `Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[${state}]       8       127.0.0.1 28777       10.0.2.15    80     0     0\r
  TCP[HOST_FORWARD]   3       127.0.0.1 28777       10.0.2.15    80     0     0\r
`;

test('a connection has reached the guest once that has answered, not when libslirp has taken it', () => {
  const at = { address: '127.0.0.1', port: 28_777 };
  expect(['SYN_SENT', 'HOST_FORWARD', 'ESTABLISHED', 'FIN_WAIT_2'].map((state) => isEstablished(said(state), at))).toEqual([false, false, true, false]);
  expect([isEstablished(said('ESTABLISHED'), { ...at, port: 28_778 }), isEstablished(said('ESTABLISHED'), { ...at, address: '127.0.0.2' }), isEstablished('', at)]).toEqual([false, false, false]);
});
