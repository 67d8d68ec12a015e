import { createServer } from 'node:http';
import type { Registry } from 'prom-client';

/** What the operator tells of itself over plain HTTP. */
export type Health = { live: () => boolean; ready: () => boolean; registry: Registry };

/** Serves `/healthz`, `/readyz` and `/metrics`. Source: Kubernetes API health endpoints; Prometheus text format. */
export const serveHealth = async (health: Health, listen: { host: string; port: number }): Promise<AsyncDisposable> => {
  const { registry } = health;
  const server = createServer((request, response) => {
    const say = (ok: boolean) => { response.writeHead(ok ? 200 : 503, { 'content-type': 'text/plain' }).end(ok ? 'ok\n' : 'not yet\n'); };
    switch (request.url ?? '') {
      case '/healthz':
        return say(health.live());
      case '/readyz':
        return say(health.ready());
      case '/metrics':
        registry.metrics().then(
          (text) => { response.writeHead(200, { 'content-type': registry.contentType }).end(text); },
          () => { response.writeHead(500).end(); },
        );
        return;
      default:
        response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve, fail) => {
    server.once('error', fail);
    server.listen(listen.port, listen.host, resolve);
  });
  return { [Symbol.asyncDispose]: () => new Promise<void>((resolve) => { server.closeAllConnections(); server.close(() => { resolve(); }); }) };
};
