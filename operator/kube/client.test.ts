import { once } from 'node:events';
import { createServer } from 'node:http';
import { KubeConfig } from '@kubernetes/client-node';
import { expect, test } from '@jest/globals';
import { z } from 'zod';
import { connectLanes } from './client.ts';
import type { Kube } from './kube.ts';

const address = z.object({ port: z.int() });

test('what strangers make us ask keeps neither our lead waiting nor our work, and work not our lead', async () => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    if (!request.url?.startsWith('/never')) response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [{ name: 'c', server: `http://127.0.0.1:${address.parse(server.address()).port}`, skipTLSVerify: true }], users: [{ name: 'u' }],
    contexts: [{ name: 'x', cluster: 'c', user: 'u' }], currentContext: 'x',
  });
  const leaving = new AbortController();
  try {
    await using api = connectLanes(config, { userAgent: 'test/0' });
    const flood = (kube: Kube) => Promise.allSettled(Array.from({ length: 50 }, () => kube.request('GET', '/never', { signal: leaving.signal })));
    const { kube, lanes } = api;
    const reviews = flood(lanes.reviews);
    await kube.request('GET', '/work', { deadlineMs: 2_000 });
    const work = flood(kube);
    await lanes.lease.request('GET', '/lease', { deadlineMs: 2_000 });
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
