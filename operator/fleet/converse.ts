import type { WebSocket } from 'ws';
import { messageOf } from '#crds/kit/fault.ts';
import type { AgentIdentity } from './auth.ts';
import { makeSession, type SessionHouse } from './session.ts';

/** Most bytes that may wait for a slow agent before its session is closed; it says everything again when it returns. */
const maxBufferedBytes = 64 * 1024 * 1024;
/** Most frames that wait for the one before them; the rest waits in the agent, by TCP. */
const maxWaiting = 32;

/** Has a session over a WebSocket. Its frames are handled strictly in their order, one after the other. */
export const converse = (house: SessionHouse, identity: AgentIdentity, webSocket: WebSocket): void => {
  const session = makeSession(house, identity, {
    send: (text) => {
      if (webSocket.bufferedAmount > maxBufferedBytes) webSocket.terminate();
      else webSocket.send(text, () => session.drained());
    },
    bufferedBytes: () => webSocket.bufferedAmount,
    close: (code, reason) => webSocket.close(code, reason),
  });
  const timer = setInterval(session.tick, 1_000);
  let waiting = 0;
  let pump: Promise<void> = Promise.resolve();
  const handle = async (data: Buffer, isBinary: boolean): Promise<void> => {
    try {
      if (isBinary) webSocket.close(1003, 'frames are text');
      else await session.receive(data.toString('utf8'));
    } catch (thrown) {
      house.log.warn({ node: identity.node, why: messageOf(thrown) }, 'session ended by a fault');
      webSocket.close(1011, 'fault');
    }
    waiting -= 1;
    if (waiting === 0 && webSocket.isPaused) webSocket.resume();
  };
  webSocket.on('message', (data: Buffer, isBinary: boolean) => {
    waiting += 1;
    if (waiting >= maxWaiting) webSocket.pause();
    pump = pump.then(() => handle(data, isBinary));
  });
  webSocket.on('error', () => webSocket.terminate());
  webSocket.on('close', () => {
    clearInterval(timer);
    session.ended();
  });
};
