import { readFile } from 'node:fs/promises';
import { WebSocket } from 'ws';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { maxFrameBytes } from '#crds/wire/messages.ts';

/** The part of a WebSocket that a link needs. */
export type Socket = {
  /** `sent` is called when the text has left this process, or never. */
  send: (text: string, sent: () => void) => void;
  bufferedBytes: () => number;
  /** Says good-bye; the connection is gone soon after, whatever the peer does. */
  close: (code: number, reason: string) => void;
};

/** What a socket tells. Nothing comes after `closed`. */
export type Ears = { message: (text: string) => void; closed: (why: string) => void };

/** Connects to an operator; `signal` limits that alone, not the life of the socket. Faults: DialRefused (401, 403), NotLeader (503), DialFailed. */
export type Dial = (token: string, ears: Ears, signal: AbortSignal) => Promise<Socket>;

/** Where the operator is, and the file with the CA that its certificate must come from; unset: the system's CAs. */
export type DialTarget = { url: string; caFile?: string };

const handshakeMs = 10_000;
const farewellMs = 2_000;

/** The address of the agents' door: `https` and `wss` mean the same. */
export const doorOf = (url: string): string => {
  const door = new URL(url);
  door.protocol = door.protocol === 'http:' || door.protocol === 'ws:' ? 'ws:' : 'wss:';
  door.pathname = `${door.pathname.replace(/\/+$/, '')}/agent/ws`;
  return door.href;
};

/** Connects over TLS. The CA is read anew each time: certificates are renewed while we live. */
export const makeDial = ({ url, caFile }: DialTarget): Dial => async (token, ears, signal) => {
  const door = doorOf(url);
  const ca = caFile === undefined ? undefined : await readFile(caFile).catch((cause: unknown) => {
    throw new Fault('DialFailed', `control_plane_ca ${caFile} can not be read: ${messageOf(cause)}`, { cause });
  });
  signal.throwIfAborted();
  const socket = new WebSocket(door, {
    ...(ca === undefined ? {} : { ca }),
    headers: { authorization: `Bearer ${token}` }, perMessageDeflate: false, maxPayload: maxFrameBytes, handshakeTimeout: handshakeMs, followRedirects: false,
  });
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const abort = () => socket.terminate();
  signal.addEventListener('abort', abort, { once: true });
  let opened = false;
  let why = 'closed';
  socket.on('error', (error) => {
    why = messageOf(error);
    reject(new Fault('DialFailed', `${door}: ${why}`, { cause: error }));
  });
  socket.on('unexpected-response', (request, response) => {
    const status = response.statusCode ?? 0;
    const code = status === 401 || status === 403 ? 'DialRefused' : status === 503 ? 'NotLeader' : 'DialFailed';
    reject(new Fault(code, `${door} answered ${status}`));
    request.destroy();
  });
  socket.on('message', (data: Buffer, isBinary: boolean) => {
    if (isBinary) socket.close(1003, 'frames are text');
    else ears.message(data.toString('utf8'));
  });
  socket.on('close', (code, reason) => {
    signal.removeEventListener('abort', abort);
    const said = reason.toString('utf8');
    if (opened) ears.closed(code === 1006 ? why : `${code} ${said}`.trim());
    reject(new Fault('DialFailed', `${door}: ${why}`));
  });
  socket.on('open', () => {
    opened = true;
    // From here on the session decides when to close.
    signal.removeEventListener('abort', abort);
    resolve({
      send: (text, sent) => socket.send(text, (error) => { if (!error) sent(); }),
      bufferedBytes: () => socket.bufferedAmount,
      close: (code, reason) => {
        socket.close(code, reason.slice(0, 120));
        setTimeout(() => socket.terminate(), farewellMs).unref();
      },
    });
  });
  return promise;
};
