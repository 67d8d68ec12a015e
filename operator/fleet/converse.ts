import type { WebSocket } from 'ws';
import { makeBudget, type Rate } from '#crds/kit/budget.ts';
import { messageOf } from '#crds/kit/fault.ts';
import type { AgentIdentity } from './auth.ts';
import { makeSession, type SessionHouse } from './session.ts';

/** Most bytes that may wait for a slow agent before its session is closed; it says everything again when it returns. */
const maxBufferedBytes = 64 * 1024 * 1024;
/** Most frames that wait for the one before them; the rest waits in the agent, by TCP. */
const maxWaiting = 32;

/** What one agent may say: a thousand VMs that all change at once are within the bursts. What is beyond waits in the agent, by TCP. */
export type TalkLimits = { frames: Rate; bytes: Rate };

/** The limits of production. */
export const talkLimits: TalkLimits = {
  frames: { perSecond: 200, atOnce: 5_000 },
  bytes: { perSecond: 4 * 1024 * 1024, atOnce: 64 * 1024 * 1024 },
};

/** Has a session over a WebSocket. Its frames are handled strictly in their order, one after the other. */
export const converse = (house: SessionHouse, identity: AgentIdentity, webSocket: WebSocket, limits: TalkLimits): void => {
  const session = makeSession(house, identity, {
    send: (text) => {
      if (webSocket.bufferedAmount > maxBufferedBytes) webSocket.terminate();
      else webSocket.send(text, () => session.drained());
    },
    bufferedBytes: () => webSocket.bufferedAmount,
    close: (code, reason) => webSocket.close(code, reason),
  });
  const timer = setInterval(session.tick, 1_000);
  const frames = makeBudget(limits.frames, house.monotonicMs);
  const bytes = makeBudget(limits.bytes, house.monotonicMs);
  let debt: NodeJS.Timeout | undefined;
  let waiting = 0;
  let pump: Promise<void> = Promise.resolve();
  const listen = (): void => {
    if (waiting >= maxWaiting || debt !== undefined) webSocket.pause();
    else if (waiting === 0 && webSocket.isPaused) webSocket.resume();
  };
  const heard = (data: Buffer): void => {
    const debtMs = Math.max(frames.spend(1), bytes.spend(data.length));
    if (debtMs > 0) {
      clearTimeout(debt);
      debt = setTimeout(() => {
        debt = undefined;
        listen();
      }, debtMs);
    }
    listen();
  };
  const handle = async (data: Buffer, isBinary: boolean): Promise<void> => {
    try {
      if (isBinary) webSocket.close(1003, 'frames are text');
      else await session.receive(data.toString('utf8'));
    } catch (thrown) {
      house.log.warn({ node: identity.node, why: messageOf(thrown) }, 'session ended by a fault');
      webSocket.close(1011, 'fault');
    }
    waiting -= 1;
    listen();
  };
  webSocket.on('message', (data: Buffer, isBinary: boolean) => {
    waiting += 1;
    heard(data);
    pump = pump.then(() => handle(data, isBinary));
  });
  // Who pings and never reads shall not fill our memory with answers.
  webSocket.on('ping', (data: Buffer) => {
    heard(data);
    if (webSocket.bufferedAmount === 0) webSocket.pong(data);
  });
  webSocket.on('pong', heard);
  webSocket.on('error', () => webSocket.terminate());
  webSocket.on('close', () => {
    clearInterval(timer);
    clearTimeout(debt);
    session.ended();
  });
};
