import { setMaxListeners } from 'node:events';
import type { KubeConfig } from '@kubernetes/client-node';
import { Agent, type Dispatcher, ProxyAgent } from 'undici';
import { orAborted } from '#crds/kit/aborted.ts';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { type Credentials, credentials } from './auth.ts';
import { failureOf } from './failure.ts';
import { type Kube, KubeFault, type Lanes, type Query } from './kube.ts';
import { jsonLines } from './lines.ts';

/** A connected `Kube` and what belongs to it. */
export type Client = Kube & AsyncDisposable & {
  /** The namespace of the kubeconfig's context or of the pod. */
  namespace: string | undefined;
};

type Pool = { fingerprint: string; requests: Dispatcher; watches: Dispatcher };

const keepAliveTimeout = 30_000;

/**
 * Connects to the API server of a loaded KubeConfig (see `loadConfig`) by one pool of at most 8 kept-alive connections, if it is not told otherwise;
 * watches have their own. When the CA or a client certificate rotates, new requests use a new pool. Writes ask for strict field validation.
 * The product name in `userAgent` (`strato-operator/0.1.0`) becomes the field manager of our writes.
 */
export const connectKube = (config: KubeConfig, { userAgent, deadlineMs = 30_000, connections = 8 }: { userAgent: string; deadlineMs?: number; connections?: number }): Client => {
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new Fault('KubeconfigInvalid', 'the kubeconfig has no current cluster', { retry: 'never' });
  const server = new URL(cluster.server);
  const prefix = server.pathname.replace(/\/+$/, '');
  const open = new Set<Pool>();
  let current: Pool | undefined;

  const close = async (pool: Pool): Promise<void> => {
    await Promise.allSettled([pool.requests.close(), pool.watches.destroy()]);
    open.delete(pool);
  };
  const poolFor = (fresh: Credentials): Pool => {
    if (current?.fingerprint === fresh.fingerprint) return current;
    const old = current;
    current = { fingerprint: fresh.fingerprint, requests: agentOf(fresh, { connections }), watches: agentOf(fresh, { bodyTimeout: 0 }) };
    open.add(current);
    // The watches of the old pool end here and are opened again with the new keys.
    if (old !== undefined) void close(old);
    return current;
  };
  const target = (path: string, query: Query = {}) => {
    const given = Object.entries(query).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as const]));
    return { origin: server.origin, path: `${prefix}${path}${given.length === 0 ? '' : `?${new URLSearchParams(Object.fromEntries(given))}`}` };
  };

  return {
    namespace: config.getContextObject(config.getCurrentContext())?.namespace,

    request: async (method, path, options = {}) => {
      const doing = `${method} ${path}`;
      const bound = options.deadlineMs ?? deadlineMs;
      const deadline = AbortSignal.timeout(bound);
      const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
      try {
        // Exec plugins have no time limit of their own.
        const fresh = await orAborted(credentials(config), signal);
        const body = options.body === undefined ? undefined : JSON.stringify(options.body);
        const response = await poolFor(fresh).requests.request({
          ...target(path, method === 'GET' || method === 'DELETE' ? options.query : { fieldValidation: 'Strict', ...options.query }),
          method,
          signal,
          headers: {
            ...fresh.headers,
            accept: 'application/json',
            'user-agent': userAgent,
            ...(body === undefined ? {} : { 'content-type': options.contentType ?? 'application/json' }),
          },
          ...(body === undefined ? {} : { body }),
        });
        const text = await response.body.text();
        if (response.statusCode < 200 || response.statusCode > 299) throw refusal(doing, response, text);
        return String(response.headers['content-type'] ?? '').includes('json') ? JSON.parse(text) : text;
      } catch (thrown) {
        if (deadline.aborted) throw new KubeFault(doing, { status: 0, reason: 'ApiServerTimeout', message: `no answer within ${bound} ms`, cause: thrown });
        throw unreachable(doing, thrown);
      }
    },

    stream: async function* (path, { query, signal }) {
      const doing = `WATCH ${path}`;
      // A watch hands its signal to many parts; that is no leak.
      setMaxListeners(0, signal);
      let response: Dispatcher.ResponseData;
      try {
        const fresh = await orAborted(credentials(config), signal);
        response = await poolFor(fresh).watches.request({
          ...target(path, { watch: true, ...query }), method: 'GET', signal,
          headers: { ...fresh.headers, accept: 'application/json', 'user-agent': userAgent },
        });
        if (response.statusCode !== 200) throw refusal(doing, response, await response.body.text());
      } catch (thrown) {
        throw unreachable(doing, thrown);
      }
      try {
        yield* jsonLines(response.body, doing);
      } finally {
        response.body.on('error', () => {}).destroy();
      }
    },

    [Symbol.asyncDispose]: async () => {
      await Promise.all([...open].map(close));
    },
  };
};

const agentOf = ({ tls, proxy }: Credentials, limits: Agent.Options): Dispatcher => {
  // Over HTTP/2 `connections` limits nothing, and undici 8.12 on Node 24 now and then spins and takes all memory when sessions with open streams end.
  const common: Agent.Options = { keepAliveTimeout, headersTimeout: 60_000, allowH2: false, ...limits };
  // Under the idle limit of common load balancers (60 s), as client-go does.
  const connect = { ...tls, keepAlive: true, keepAliveInitialDelay: 30_000 };
  if (proxy === undefined) return new Agent({ ...common, connect });
  if (proxy.startsWith('http')) return new ProxyAgent({ ...common, uri: proxy, requestTls: connect });
  throw new Fault('KubeconfigInvalid', 'the proxy-url of the kubeconfig is no HTTP proxy: not supported', { retry: 'never' });
};

const refusal = (doing: string, response: Dispatcher.ResponseData, text: string): KubeFault => {
  const retryAfter = response.headers['retry-after'];
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    // Proxies and a starting API server answer in plain text.
  }
  return new KubeFault(doing, failureOf(response.statusCode, body, typeof retryAfter === 'string' ? retryAfter : undefined));
};

const unreachable = (doing: string, thrown: unknown): Fault =>
  thrown instanceof Fault ? thrown : new KubeFault(doing, { status: 0, message: messageOf(thrown), cause: thrown });

/** A connected `Kube` and its lanes. */
export const connectLanes = (config: KubeConfig, options: { userAgent: string }): AsyncDisposable & { kube: Client; lanes: Lanes } => {
  const kube = connectKube(config, options);
  const lease = connectKube(config, { ...options, connections: 2 });
  const reviews = connectKube(config, options);
  return { kube, lanes: { lease, reviews }, [Symbol.asyncDispose]: async () => { await Promise.all([kube, lease, reviews].map((each) => each[Symbol.asyncDispose]())); } };
};
