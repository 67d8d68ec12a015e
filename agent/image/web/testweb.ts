import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';

/** How a path of the test server is answered. `cut` ends the connection in mid-body, `hold` waits there. */
export type Answer =
  | { is: 'bytes'; bytes: Buffer; midway?: 'cut' | 'hold'; chunked?: boolean }
  | { is: 'status'; status: number; location?: string }
  | { is: 'silent' };

/** A web server on an address of this machine for tests of downloads. */
export type TestWeb = {
  port: number;
  /** The Host header of the last request. */
  lastHost: () => string | undefined;
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
  const counts = new Map<string, number>();
  const held = new Set<() => void>();
  let holding = false;
  let lastHost: string | undefined;

  const send = (answer: Answer & { is: 'bytes' }, response: ServerResponse): void => {
    const half = answer.bytes.subarray(0, answer.bytes.byteLength >> 1);
    const rest = answer.bytes.subarray(half.byteLength);
    response.writeHead(200, answer.chunked ? {} : { 'content-length': answer.bytes.byteLength });
    response.write(half, () => {
      if (answer.midway === 'cut') response.destroy();
      else if (answer.midway === 'hold' || holding) held.add(() => response.end(rest));
      else response.end(rest);
    });
  };
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    lastHost = request.headers.host;
    counts.set(path, (counts.get(path) ?? 0) + 1);
    const answer = answers.get(path) ?? { is: 'status', status: 404 };
    if (answer.is === 'bytes') send(answer, response);
    else if (answer.is === 'status') response.writeHead(answer.status, answer.location === undefined ? {} : { location: answer.location }).end();
  });
  server.listen(wantedPort, address);
  await once(server, 'listening');
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : 0;
  return {
    port,
    lastHost: () => lastHost,
    serve: (path, answer) => {
      answers.set(path, answer);
      return `http://${address}:${port}${path}`;
    },
    requests: (path) => counts.get(path) ?? 0,
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
