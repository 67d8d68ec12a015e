// Serves files over HTTP on 127.0.0.1. Arguments: PORT NAME=FILE... ; GET /NAME gives the file, GET /healthz says that we are here.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';

const [port, ...given] = z.tuple([z.coerce.number().int().min(1).max(65535)], z.string().regex(/^[a-z0-9.-]+=\/.+$/)).parse(process.argv.slice(2));
const files = new Map(given.map((text) => [`/${text.slice(0, text.indexOf('='))}`, text.slice(text.indexOf('=') + 1)]));

const isGone = (thrown: unknown) => thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT';

const server = createServer((request, response) => {
  const file = files.get(request.url ?? '');
  const answer = (status: number, text: string) => response.writeHead(status, { 'content-type': 'text/plain' }).end(`${text}\n`);
  if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, 'only GET and HEAD');
  if (request.url === '/healthz') return answer(200, 'ok');
  if (file === undefined) return answer(404, `there are: ${[...files.keys()].join(' ')}`);
  return void send(file).catch((thrown: unknown) => (response.headersSent ? response.destroy() : isGone(thrown) ? answer(404, 'it has not been made') : answer(500, 'the file can not be read')));

  async function send(path: string) {
    const { size } = await stat(path);
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': size });
    if (request.method === 'HEAD') response.end();
    else await pipeline(createReadStream(path), response);
  }
});
server.listen(port, '127.0.0.1', () => console.log(`serving ${[...files.keys()].join(' ')} on 127.0.0.1:${port}`));
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    server.close();
    server.closeAllConnections();
  });
}
