import { createSign } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Agent, request } from 'undici';
import { WebSocket } from 'ws';
import { writeFrame } from '#crds/wire/frame.ts';
import { protocolRange, toAgent, type ToOperator } from '#crds/wire/messages.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import { type Cluster, startCluster } from '#hack/bed/cluster.ts';
import { type BedOperator, startBedOperator } from '#hack/bed/operator.ts';
import { user, verdict } from '#hack/bed/objects.ts';
import { until } from '#hack/bed/until.ts';
import { startSimNode } from '#hack/sim/node.ts';
import { parseLease } from '../kube/lease.ts';

const someFacts: NodeFacts = {
  agentVersion: '1', qemuVersion: '7.2', kernel: 'k', os: 'o', architecture: 'amd64', accelerators: ['tcg'], networkMode: 'user', bootId: 'b',
  capacity: { cpus: 2, memoryMiB: 1024, storageMiB: 1024 }, forwards: { address: '127.0.0.1', minPort: 1024, maxPort: 65535 }, troubles: [],
};

/** Who may speak at the agents' door: real tokens, reviewed by a real API server. */
describe('the agents\' door', () => {
  let cluster: Cluster;
  let operator: BedOperator;
  let ca: string;

  beforeAll(async () => {
    cluster = await startCluster();
    operator = await startBedOperator(cluster);
    ca = await readFile(cluster.authority, 'utf8');
    await operator.leading();
  }, 300_000);
  afterAll(async () => {
    await operator?.stop();
    await cluster?.[Symbol.asyncDispose]();
  });

  /** The status that answers an upgrade: 101 when it is accepted. */
  const knock = async (token?: string, path = '/agent/ws', at = operator.url): Promise<number> => {
    const socket = new WebSocket(`${at.replace('https', 'wss')}${path}`, { ca, ...(token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } }) });
    socket.on('error', () => {});
    const answer = await Promise.race([
      once(socket, 'open').then(() => 101),
      once(socket, 'unexpected-response').then(([, response]) => Number(response.statusCode)),
    ]);
    socket.terminate();
    return answer;
  };

  test('opens for an agent\'s token that is bound to a node', async () => {
    expect(await knock(await cluster.token({ node: 'node-1' }))).toBe(101);
  });

  test('stays shut without a credential, and for one that is none', async () => {
    expect([await knock(), await knock('nonsense'), await knock('a.b.c')]).toEqual([401, 401, 401]);
  });

  test.each([
    ['an ordinary API token of the agent', { node: 'node-1', audience: '' }],
    ['a token of another audience', { node: 'node-1', audience: 'somebody-else' }],
    ['a token without a node claim', {}],
    ['a foreign ServiceAccount\'s token of our audience', { node: 'node-1', serviceAccount: 'strato-operator' }],
    ['the same ServiceAccount of another namespace', { node: 'node-1', namespace: 'kube-public' }],
  ])('stays shut for %s', async (_, wish) => {
    await cluster.kube.request('PATCH', '/api/v1/namespaces/kube-public/serviceaccounts/strato-agent', {
      body: { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'strato-agent' } }, contentType: 'application/apply-patch+yaml', query: { fieldManager: 'test' },
    });
    expect(await knock(await cluster.token(wish))).toBe(401);
  });

  /** A token with other claims; signed with the API server's own key, or as it was. */
  const forge = async (token: string, claims: object, signed: boolean): Promise<string> => {
    const [head = '', body = '', signature = ''] = token.split('.');
    const altered = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(body, 'base64url').toString()), ...claims })).toString('base64url');
    const fresh = createSign('RSA-SHA256').update(`${head}.${altered}`).sign(await readFile(cluster.signingKey, 'utf8'), 'base64url');
    return [head, altered, signed ? fresh : signature].join('.');
  };

  test('stays shut for an expired, an altered and a self-made token, and for one whose node is gone', async () => {
    const token = await cluster.token({ node: 'node-1' });
    const now = Math.floor(Date.now() / 1000);
    // The forger is good: with nothing but another time in it the token is accepted.
    expect(await knock(await forge(token, { exp: now + 1_000 }, true))).toBe(101);
    expect(await knock(await forge(token, { iat: now - 2_000, nbf: now - 2_000, exp: now - 1_000 }, true))).toBe(401);
    expect(await knock(await forge(token, { exp: now + 1_000 }, false))).toBe(401);
    const lost = await cluster.token({ node: 'node-lost' });
    await cluster.kube.request('DELETE', '/api/v1/nodes/node-lost');
    // The API server reviews by what it has seen of nodes: their end a moment later.
    await until('the token to be refused', async () => (await knock(lost)) === 401, 60_000);
  });

  test('is one path, and no page', async () => {
    const token = await cluster.token({ node: 'node-1' });
    expect(await knock(token, '/agent/ws/../other')).toBe(404);
    const dispatcher = new Agent({ connect: { ca } });
    const { statusCode, body } = await request(`${operator.url}/agent/ws`, { dispatcher });
    await body.dump();
    await dispatcher.close();
    expect(statusCode).toBe(404);
  });

  test('gives an agent the node of its token, whatever else it says', async () => {
    // The agent calls itself node-9; nothing that it says names a node.
    await using _agent = await startSimNode({ name: 'node-9', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-2' }) });
    await user(cluster.kube).nodeIs('node-2', 'Ready=True Ready');
    await expect(user(cluster.kube).node('node-9')).rejects.toThrow('NotFound');
  });

  test('refuses another agent under the name of a known node, until an administrator accepts it', async () => {
    const me = user(cluster.kube);
    const uplink = { name: 'node-2', url: operator.url, caFile: cluster.authority, token: () => cluster.token({ node: 'node-2' }) };
    await using rival = await startSimNode({ ...uplink, agentId: 'rival' });
    await until('the refusal', () => operator.lines.some(({ fields }) => fields['reason'] === 'IdentityConflict'), 60_000);
    expect(rival.agent.joined()).toBe(false);
    const told = await me.nodeIs('node-2', 'AgentRefused=True IdentityConflict');
    expect(told.status.conditions?.find(({ type }) => type === 'AgentRefused')?.message).toContain('kubectl annotate hvn node-2 --overwrite strato.dev/accept-agent=rival');
    await me.annotateNode('node-2', { 'strato.dev/accept-agent': 'rival' });
    await until('the rival to join', () => rival.agent.joined(), 60_000);
    await until('it to be recorded', async () => (await me.node('node-2')).status.agentId === 'rival', 60_000);
    await until('nobody to be refused any more', async () => verdict(await me.node('node-2'), 'AgentRefused') === undefined, 60_000);
  });

  test('a renewed token keeps a session, one of another node ends it', async () => {
    let token = await cluster.token({ node: 'node-3' });
    const heard: string[] = [];
    const log = { debug: (_: unknown, text: string) => void heard.push(text), info: () => {}, warn: () => {}, error: () => {} };
    await using agent = await startSimNode({ name: 'node-3', url: operator.url, caFile: cluster.authority, token: async () => token, log });
    await until('the agent to join', () => agent.agent.joined(), 60_000);
    token = await cluster.token({ node: 'node-3', seconds: 700 });
    await until('the renewal', () => heard.includes('credential renewed'), 60_000);
    expect(agent.agent.joined()).toBe(true);
    token = await cluster.token({ node: 'node-4' });
    await until('the refusal', () => operator.lines.some(({ fields }) => fields['node'] === 'node-3' && fields['reason'] === 'TokenRefused'), 60_000);
  });

  /** Says hello as an agent of a node and gives the epoch that it is welcomed with. */
  const greet = async (node: string, leaderEpochSeen: number): Promise<number> => {
    const socket = new WebSocket(`${operator.url.replace('https', 'wss')}/agent/ws`, { ca, headers: { authorization: `Bearer ${await cluster.token({ node })}` } });
    await once(socket, 'open');
    const hello: ToOperator = { type: 'hello', protocol: protocolRange, capabilities: [], agentId: `agent-of-${node}`, leaderEpochSeen, facts: someFacts };
    socket.send(writeFrame(hello));
    const [data] = await once(socket, 'message');
    socket.terminate();
    const message = toAgent.parse(JSON.parse(String(data)));
    return message.type === 'welcome' ? message.leaderEpoch : NaN;
  };

  test('commands an agent above whatever epoch it claims to have seen, and keeps that from the Lease, the other agents and the next leader', async () => {
    const { lease, ours } = await leads();
    expect(await greet('node-5', 2 ** 31 - 2)).toBe(2 ** 31 - 1);
    expect(await greet('node-5', 2 ** 31 + 7)).toBe(2 ** 31 + 8);
    expect([await greet('node-6', 0), (await leads()).lease]).toEqual([ours, lease]);
    await operator.stop();
    operator = await startBedOperator(cluster, { port: Number(new URL(operator.url).port) });
    await operator.leading();
    expect(await leads()).toEqual({ lease: lease + 1, ours: lease + 1 });
    expect([await greet('node-5', 2 ** 31 + 8), await greet('node-6', ours)]).toEqual([2 ** 31 + 9, ours + 1]);
  });

  const leads = async () => ({
    lease: parseLease(await cluster.kube.request('GET', '/apis/coordination.k8s.io/v1/namespaces/strato-system/leases/strato-operator')).transitions,
    ours: (await operator.leading()).leaderEpoch() ?? NaN,
  });

  test('answers 503 when it does not lead, and when nobody can review the token', async () => {
    await using follower = await startBedOperator(cluster);
    await until('the follower to wait', () => follower.running.term()?.ready(), 60_000);
    const token = await cluster.token({ node: 'node-1' });
    expect(await knock(token, '/agent/ws', follower.url)).toBe(503);
    await cluster.kill();
    try {
      expect(await knock(token)).toBe(503);
    } finally {
      await cluster.start();
    }
  });
});
