import { z } from 'zod';
import { type FakeKind, type Happening, makeStore, parseStored, type Stored } from './fakestore.ts';
import { type FakeStream, makeStream } from './fakestream.ts';
import { type Kube, type KubeFailure, KubeFault, type Method, type Query } from './kube.ts';
import { applyMerge } from './patch.ts';

/** One request that the fake has received; a watch is the method WATCH. */
export type FakeRequest = { method: Method | 'WATCH'; path: string; query: Query; body: unknown };

/** A failure to inject: for the next `times` requests (once when unset) that match. */
export type FakeFailure = { method?: FakeRequest['method']; path?: RegExp; times?: number; failure: KubeFailure };

/** An API server in memory, with levers for all that goes wrong. */
export type FakeKube = Kube & {
  /** Everything asked so far, in order. */
  requests: FakeRequest[];
  /** Puts an object in, past all checks. */
  put: (kind: FakeKind, namespace: string | undefined, object: Record<string, unknown>) => Stored;
  /** The next matching requests fail. */
  fail: (rule: FakeFailure) => void;
  /** From now on this decides which requests fail: for failures by chance. */
  chaos: (decide: ((request: FakeRequest) => KubeFailure | undefined) | undefined) => void;
  /** Ends every open watch: in good order, or with a fault. */
  cut: (failure?: KubeFailure) => void;
  /** Sends a frame to every open watch. */
  send: (frame: unknown) => void;
  /** Sends every open watch a bookmark of the newest version. */
  bookmark: () => void;
  /** Watches stay open and say nothing, those opened later too; false makes new ones speak again. */
  mute: (muted: boolean) => void;
  /** Whether streamed lists are served; true. */
  streamedLists: (served: boolean) => void;
  /** Forgets history, so that a resumed watch is answered by a 410 frame. */
  compact: () => void;
  /** Takes a snapshot of etcd; calling what it returns restores it and cuts all watches. */
  snapshot: () => () => void;
  /** How many watches are open. */
  watches: () => number;
};

const deletion = z.object({ preconditions: z.object({ uid: z.string().optional() }).optional() }).nullish();
const initialEventsEnd = { 'k8s.io/initial-events-end': 'true' };

/**
 * A fake API server with the semantics that the operator leans on: versions, conflicts, merge patches, status subresource, generations,
 * finalizers, lists in pages, watches, streamed lists and bookmarks. It passes `contract.ts` as the real one does.
 */
export const makeFakeKube = (kinds: readonly FakeKind[], now: () => Date = () => new Date(0)): FakeKube => {
  type Open = { kind: FakeKind; namespace: string | undefined; query: Query; stream: FakeStream; from: number; mute: boolean };
  const open = new Set<Open>();
  const requests: FakeRequest[] = [];
  const rules: FakeFailure[] = [];
  let decide: ((request: FakeRequest) => KubeFailure | undefined) | undefined;
  let muted = false;
  let streamed = true;

  const tell = (watch: Open, { kind, object, version, type }: Happening): void => {
    if (watch.mute || kind.resource !== watch.kind.resource || version <= watch.from) return;
    if (matches(object, watch.namespace, watch.query)) watch.stream.push({ type, object });
  };
  const store = makeStore((happening) => {
    for (const watch of open) tell(watch, happening);
  }, now);

  const admit = (request: FakeRequest): void => {
    requests.push(request);
    const doing = `${request.method} ${request.path}`;
    const rule = rules.find((each) => (each.method ?? request.method) === request.method && (each.path === undefined || each.path.test(request.path)));
    if (rule !== undefined) {
      rule.times = (rule.times ?? 1) - 1;
      if (rule.times <= 0) rules.splice(rules.indexOf(rule), 1);
      throw new KubeFault(doing, rule.failure);
    }
    const failure = decide?.(request);
    if (failure !== undefined) throw new KubeFault(doing, failure);
  };
  const refuse = (kind: FakeKind, object: unknown): void => {
    const why = kind.refuse?.(object);
    if (why !== undefined) throw new KubeFault('fake', { status: 400, reason: 'BadRequest', message: why });
  };
  const listOf = (kind: FakeKind, namespace: string | undefined, query: Query) => {
    const all = store.list(kind, namespace).filter((each) => matches(each, namespace, query));
    const from = Number(query['continue'] ?? 0);
    const until = query['limit'] === undefined ? all.length : from + Number(query['limit']);
    const more = until < all.length ? { continue: String(until) } : {};
    return { apiVersion: kind.apiVersion, kind: `${kind.kind}List`, metadata: { resourceVersion: String(store.version()), ...more }, items: all.slice(from, until) };
  };

  return {
    requests,
    request: async (method, path, { query = {}, body, contentType, signal } = {}) => {
      await Promise.resolve();
      if (signal?.aborted === true) throw new KubeFault(`${method} ${path}`, { status: 0, message: 'aborted', cause: signal.reason });
      admit({ method, path, query, body });
      const { kind, namespace, name, sub } = route(kinds, method, path);
      const answer = (): unknown => {
        if (name === undefined) {
          if (method === 'GET') return listOf(kind, namespace, query);
          refuse(kind, body);
          return store.create(kind, namespace, parseStored(body));
        }
        const at = { namespace, name };
        switch (method) {
          case 'GET':
            return store.get(kind, at);
          case 'DELETE':
            return store.remove(kind, at, deletion.parse(body)?.preconditions ?? {});
          case 'PATCH':
            if (contentType !== 'application/merge-patch+json') throw new KubeFault('fake', { status: 415, message: `the fake knows no patch of type ${contentType}` });
            return store.update(kind, at, sub, (old) => {
              const next = applyMerge(old, body);
              if (sub === undefined) refuse(kind, next);
              return next;
            });
          case 'PUT':
            refuse(kind, body);
            return store.update(kind, at, sub, () => body);
          case 'POST':
            throw new KubeFault('fake', { status: 405, message: 'POST to an object' });
          default:
            return method satisfies never;
        }
      };
      return JSON.parse(JSON.stringify(answer()));
    },

    stream: async function* (path, { query = {}, signal }) {
      await Promise.resolve();
      signal.throwIfAborted();
      admit({ method: 'WATCH', path, query, body: undefined });
      const { kind, namespace } = route(kinds, 'WATCH', path);
      const initial = query['sendInitialEvents'] === true;
      if (initial && !streamed) throw new KubeFault(`WATCH ${path}`, { status: 422, reason: 'Invalid', message: 'sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled' });
      const from = initial ? store.version() : Number(query['resourceVersion'] ?? store.version());
      const stream = makeStream();
      // A version that the server has not reached: it answers 200 and stays silent.
      const watch = { kind, namespace, query, stream, from, mute: muted || from > store.version() };
      if (!watch.mute && initial) {
        for (const object of store.list(kind, namespace)) if (matches(object, namespace, query)) stream.push({ type: 'ADDED', object });
        stream.push(bookmarkOf(kind, from, initialEventsEnd));
      } else if (!watch.mute && from < store.compacted()) {
        stream.push({ type: 'ERROR', object: { kind: 'Status', code: 410, reason: 'Expired', message: `too old resource version: ${from} (${store.compacted()})` } });
        stream.end();
      } else for (const happening of store.since(from)) tell(watch, happening);
      open.add(watch);
      try {
        yield* stream.frames(signal);
      } finally {
        open.delete(watch);
      }
    },

    put: (kind, namespace, object) => store.create(kind, namespace, parseStored(object)),
    fail: (rule) => void rules.push({ ...rule }),
    chaos: (next) => void (decide = next),
    cut: (failure) => {
      for (const { stream } of open) stream.end(failure === undefined ? undefined : new KubeFault('WATCH', failure));
    },
    send: (frame) => {
      for (const { stream } of open) stream.push(frame);
    },
    bookmark: () => {
      for (const { stream, kind, mute } of open) if (!mute) stream.push(bookmarkOf(kind, store.version(), {}));
    },
    mute: (next) => {
      muted = next;
      if (next) for (const watch of open) watch.mute = true;
    },
    streamedLists: (served) => void (streamed = served),
    compact: store.compact,
    snapshot: () => {
      const saved = store.snapshot();
      return () => {
        store.restore(saved);
        for (const { stream } of open) stream.end(new KubeFault('WATCH', { status: 0, reason: 'StreamCut', message: 'the API server restarted' }));
      };
    },
    watches: () => open.size,
  };
};

const bookmarkOf = (kind: FakeKind, version: number, annotations: Record<string, string>) => ({
  type: 'BOOKMARK',
  object: { apiVersion: kind.apiVersion, kind: kind.kind, metadata: { resourceVersion: String(version), creationTimestamp: null, annotations } },
});

/** Equality label selectors, and the namespace. */
const matches = (object: Stored, namespace: string | undefined, query: Query): boolean =>
  (namespace === undefined || object.metadata.namespace === namespace) &&
  String(query['labelSelector'] ?? '').split(',').filter((term) => term !== '').every((term) => {
    const [name = '', value = ''] = term.split('=');
    return object.metadata.labels?.[name] === value;
  });

const route = (kinds: readonly FakeKind[], method: string, path: string): { kind: FakeKind; namespace: string | undefined; name: string | undefined; sub: string | undefined } => {
  const found = /^\/(?:api|apis\/(?<group>[^/]+))\/(?<version>[^/]+)(?:\/namespaces\/(?<namespace>[^/]+)(?=\/))?\/(?<plural>[^/]+)(?:\/(?<name>[^/]+))?(?:\/(?<sub>[^/]+))?$/.exec(path)?.groups;
  const kind = kinds.find(({ resource }) => found !== undefined && resource.group === (found['group'] ?? '') && resource.version === found['version'] && resource.plural === found['plural']);
  const sub = found?.['sub'];
  if (found === undefined || kind === undefined || (sub !== undefined && !(sub === 'status' && kind.status === true))) {
    throw new KubeFault(`${method} ${path}`, { status: 404, reason: 'NotFound', message: 'the server could not find the requested resource' });
  }
  const decoded = (part: string | undefined): string | undefined => (part === undefined ? undefined : decodeURIComponent(part));
  return { kind, namespace: decoded(found['namespace']), name: decoded(found['name']), sub };
};
