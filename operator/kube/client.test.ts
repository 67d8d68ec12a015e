import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createSecureServer } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node';
import { expect, test } from '@jest/globals';
import { z } from 'zod';
import { ensureKeys, pairOf } from '#hack/stack/keys.ts';
import { connectLanes } from './client.ts';
import type { Kube } from './kube.ts';

const address = z.object({ port: z.int() });
const configOf = (scheme: 'http' | 'https', at: unknown): KubeConfig => {
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [{ name: 'c', server: `${scheme}://127.0.0.1:${address.parse(at).port}`, skipTLSVerify: true }], users: [{ name: 'u' }],
    contexts: [{ name: 'x', cluster: 'c', user: 'u' }], currentContext: 'x',
  });
  return config;
};

test('what strangers make us ask keeps neither our lead waiting nor our work, and work not our lead', async () => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    if (!request.url?.startsWith('/never')) response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const config = configOf('http', server.address());
  const leaving = new AbortController();
  try {
    await using api = connectLanes(config, { userAgent: 'test/0' });
    const flood = (kube: Kube) => Promise.allSettled(Array.from({ length: 50 }, () => kube.request('GET', '/never', { signal: leaving.signal })));
    const { kube, lanes } = api;
    const reviews = flood(lanes.reviews);
    await kube.request('GET', '/work', { deadlineMs: 20_000 });
    const work = flood(kube);
    await lanes.lease.request('GET', '/lease', { deadlineMs: 20_000 });
    leaving.abort(new Error('the test ends'));
    await Promise.all([reviews, work]);
    // At most eight of each at a time.
    expect(asked.filter((path) => path === '/never').length).toBeLessThanOrEqual(16);
    expect(asked).toEqual(expect.arrayContaining(['/work', '/lease']));
  } finally {
    leaving.abort();
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }
});

test('to a server that speaks HTTP/2 too, requests and watches go by HTTP/1.1, where the bound on connections is one on requests', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'strato-client-'));
  await ensureKeys(dir, [{ name: 'ca', certs: [{ name: 'server', subject: '/CN=server', names: ['IP:127.0.0.1'], use: 'server' }] }], AbortSignal.timeout(60_000));
  const { cert, key } = pairOf(dir, 'server');
  const spoken: string[] = [];
  const server = createSecureServer({ allowHTTP1: true, cert: await readFile(cert), key: await readFile(key) }, (request, response) => {
    spoken.push(request.httpVersion);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end('{}\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await using api = connectLanes(configOf('https', server.address()), { userAgent: 'test/0' });
    await api.kube.request('GET', '/work');
    const lines: unknown[] = [];
    for await (const line of api.kube.stream('/watched', { signal: AbortSignal.timeout(10_000) })) lines.push(line);
    expect([lines, spoken]).toEqual([[{}], ['1.1', '1.1']]);
  } finally {
    server.close();
    await rm(dir, { recursive: true, force: true });
  }
});
