import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';

/**
 * How a path of the test server is answered. `cut` ends the connection in mid-body (the first `cuts` times, or always),
 * `hold` waits there. With an `etag` or a date (`changed`) ranges are served, as RFC 9110 says.
 */
export type Answer =
  | { is: 'bytes'; bytes: Buffer; midway?: 'cut' | 'hold'; cuts?: number; chunked?: boolean; etag?: string; changed?: Date }
  | { is: 'status'; status: number; location?: string }
  | { is: 'silent' }
  | { is: 'by'; answer: (request: IncomingMessage, response: ServerResponse) => void };

/** A web server on an address of this machine for tests of downloads. */
export type TestWeb = {
  port: number;
  /** The headers of each request for a path. */
  seen: (path: string) => readonly IncomingHttpHeaders[];
  serve: (path: string, answer: Answer) => string;
  requests: (path: string) => number;
  /** Sends the rest of all held answers, and holds no more. */
  release: () => void;
  holdAll: () => void;
  close: () => Promise<void>;
};

/** Starts a web server for one test. */
export const openTestWeb = async (address = '127.0.0.1', wantedPort = 0): Promise<TestWeb> => {
  const answers = new Map<string, Answer>();
  const seen = new Map<string, IncomingHttpHeaders[]>();
  const held = new Set<() => void>();
  let holding = false;

  const send = (answer: Answer & { is: 'bytes' }, request: IncomingMessage, response: ServerResponse): void => {
    const { bytes, etag, changed, chunked } = answer;
    const validator = etag ?? changed?.toUTCString();
    const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1];
    const from = asked !== undefined && validator !== undefined && (request.headers['if-range'] ?? validator) === validator ? Number(asked) : 0;
    if (from >= bytes.byteLength && from > 0) return void response.writeHead(416, { 'content-range': `bytes */${bytes.byteLength}` }).end();
    const part = bytes.subarray(from);
    const half = part.subarray(0, part.byteLength >> 1);
    const rest = part.subarray(half.byteLength);
    const cut = answer.midway === 'cut' && (answer.cuts === undefined || (seen.get(request.url ?? '') ?? []).length <= answer.cuts);
    response.writeHead(from > 0 ? 206 : 200, {
      ...(chunked ? {} : { 'content-length': part.byteLength }),
      ...(etag === undefined ? {} : { etag }), ...(changed === undefined ? {} : { 'last-modified': changed.toUTCString() }),
      ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.byteLength - 1}/${bytes.byteLength}` } : {}),
    });
    response.write(half, () => {
      if (cut) response.destroy();
      else if (answer.midway === 'hold' || holding) held.add(() => response.end(rest));
      else response.end(rest);
    });
  };
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    seen.set(path, [...(seen.get(path) ?? []), request.headers]);
    const answer = answers.get(path) ?? { is: 'status', status: 404 };
    if (answer.is === 'bytes') send(answer, request, response);
    else if (answer.is === 'by') answer.answer(request, response);
    else if (answer.is === 'status') response.writeHead(answer.status, answer.location === undefined ? {} : { location: answer.location }).end();
  });
  server.listen(wantedPort, address);
  await once(server, 'listening');
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : 0;
  return {
    port,
    seen: (path) => seen.get(path) ?? [],
    serve: (path, answer) => {
      answers.set(path, answer);
      return `http://${address}:${port}${path}`;
    },
    requests: (path) => seen.get(path)?.length ?? 0,
    release: () => {
      holding = false;
      for (const go of held) go();
      held.clear();
    },
    holdAll: () => {
      holding = true;
    },
    close: async () => {
      server.closeAllConnections();
      await once(server.close(), 'close');
    },
  };
};
