import { z } from 'zod';
import { canonical } from '#crds/kit/digest.ts';
import { KubeFault } from './kube.ts';
import { keyOf, type Resource } from './resource.ts';

/** A kind that the fake API serves. */
export type FakeKind = {
  resource: Resource;
  apiVersion: string;
  kind: string;
  /** Has a `/status` subresource, and a generation that counts changes of all but metadata and status. */
  status?: boolean;
  /** The status of a new object. */
  statusDefault?: unknown;
  /** Why an object is not acceptable (400), or undefined. */
  refuse?: (object: unknown) => string | undefined;
};

const metadata = z.looseObject({
  name: z.string().default(''), namespace: z.string().optional(), generateName: z.string().optional(), uid: z.string().default(''), resourceVersion: z.string().default(''),
  generation: z.number().optional(), deletionTimestamp: z.string().optional(), creationTimestamp: z.string().optional(),
  finalizers: z.array(z.string()).nullish().transform((list) => list ?? undefined), labels: z.record(z.string(), z.string()).nullish().transform((map) => map ?? undefined),
});
const object = z.looseObject({ metadata });

/** An object in the fake's store. */
export type Stored = z.output<typeof object>;

/** One change, as a watch tells it. */
export type Happening = { version: number; type: 'ADDED' | 'MODIFIED' | 'DELETED'; kind: FakeKind; object: Stored };

/** Parses a body of a write. */
export const parseStored = (raw: unknown): Stored => object.parse(JSON.parse(JSON.stringify(raw)));

const idOf = (kind: FakeKind, at: { namespace?: string | undefined; name: string }): string => `${kind.resource.group}/${kind.resource.plural}:${keyOf(at)}`;

/** Objects with one version counter and a history, as etcd has them. Every change is told to `onHappening`. */
export const makeStore = (onHappening: (happening: Happening) => void, now: () => Date) => {
  let version = 1_000;
  let compacted = version;
  let made = 0;
  let objects = new Map<string, Stored>();
  let history: Happening[] = [];

  const stamp = (): string => now().toISOString().replace(/\.[0-9]+Z$/, 'Z');
  const happen = (type: Happening['type'], kind: FakeKind, changed: Stored): Stored => {
    version += 1;
    const stored = { ...changed, metadata: { ...changed.metadata, resourceVersion: String(version) } };
    const id = idOf(kind, stored.metadata);
    if (type === 'DELETED') objects.delete(id);
    else objects.set(id, stored);
    const happening = { version, type, kind, object: stored };
    history.push(happening);
    onHappening(happening);
    return stored;
  };
  const missing = (kind: FakeKind, name: string): KubeFault =>
    new KubeFault('fake', { status: 404, reason: 'NotFound', message: `${kind.resource.plural} "${name}" not found` });
  const stale = (name: string): KubeFault =>
    new KubeFault('fake', { status: 409, reason: 'Conflict', message: `Operation cannot be fulfilled on "${name}": the object has been modified; please apply your changes to the latest version and try again` });
  const without = ({ status: _status, metadata: _metadata, ...rest }: Stored): unknown => rest;

  const get = (kind: FakeKind, at: { namespace?: string | undefined; name: string }): Stored => {
    const found = objects.get(idOf(kind, at));
    if (found === undefined) throw missing(kind, at.name);
    return found;
  };

  return {
    version: () => version,
    compacted: () => compacted,
    get,
    list: (kind: FakeKind, namespace: string | undefined): Stored[] => {
      const prefix = idOf(kind, { namespace, name: '' });
      return [...objects].filter(([id]) => id.startsWith(prefix)).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, stored]) => stored);
    },
    since: (from: number): Happening[] => history.filter((each) => each.version > from),

    create: (kind: FakeKind, namespace: string | undefined, body: Stored): Stored => {
      made += 1;
      const name = body.metadata.name === '' ? `${body.metadata.generateName ?? 'unnamed-'}${made}` : body.metadata.name;
      const inNamespace = kind.resource.namespaced ? { namespace: namespace ?? 'default' } : {};
      if (objects.has(idOf(kind, { ...inNamespace, name }))) {
        throw new KubeFault('fake', { status: 409, reason: 'AlreadyExists', message: `${kind.resource.plural} "${name}" already exists` });
      }
      const { status: given, ...rest } = body;
      const status = kind.status === true ? kind.statusDefault : given;
      const meta = {
        ...body.metadata, ...inNamespace, name, uid: `00000000-0000-4000-8000-${String(made).padStart(12, '0')}`, creationTimestamp: stamp(),
        ...(kind.status === true ? { generation: 1 } : {}),
      };
      return happen('ADDED', kind, { apiVersion: kind.apiVersion, kind: kind.kind, ...rest, ...(status === undefined ? {} : { status }), metadata: meta });
    },

    /** `change` gives the wanted object; what a user may not set is kept. `sub` is 'status' or undefined. */
    update: (kind: FakeKind, at: { namespace?: string | undefined; name: string }, sub: string | undefined, change: (old: Stored) => unknown): Stored => {
      const old = get(kind, at);
      const wanted = parseStored(change(old));
      if (wanted.metadata.resourceVersion !== '' && wanted.metadata.resourceVersion !== old.metadata.resourceVersion) throw stale(at.name);
      const { uid, name, creationTimestamp, deletionTimestamp, generation } = old.metadata;
      const fixed = {
        uid, name, resourceVersion: old.metadata.resourceVersion,
        ...(old.metadata.namespace === undefined ? {} : { namespace: old.metadata.namespace }), ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
        ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }), ...(generation === undefined ? {} : { generation }),
      };
      const next = sub === 'status'
        ? { ...old, status: wanted['status'] }
        : { ...wanted, ...(kind.status === true ? { status: old['status'] } : {}), metadata: { ...wanted.metadata, ...fixed } };
      if (canonical(next) === canonical(old)) return old;
      const specChanged = generation !== undefined && canonical(without(next)) !== canonical(without(old));
      const stored = { ...next, metadata: { ...next.metadata, ...(specChanged ? { generation: generation + 1 } : {}) } };
      if (deletionTimestamp !== undefined && (stored.metadata.finalizers ?? []).length === 0) return happen('DELETED', kind, stored);
      return happen('MODIFIED', kind, stored);
    },

    remove: (kind: FakeKind, at: { namespace?: string | undefined; name: string }, precondition: { uid?: string | undefined }): Stored => {
      const old = get(kind, at);
      if (precondition.uid !== undefined && precondition.uid !== old.metadata.uid) throw stale(at.name);
      if ((old.metadata.finalizers ?? []).length === 0) return happen('DELETED', kind, old);
      if (old.metadata.deletionTimestamp !== undefined) return old;
      const { generation } = old.metadata;
      return happen('MODIFIED', kind, { ...old, metadata: { ...old.metadata, deletionTimestamp: stamp(), ...(generation === undefined ? {} : { generation: generation + 1 }) } });
    },

    /** Forgets history: watches and lists of older versions are answered 410. */
    compact: (): void => {
      compacted = version;
      history = [];
    },
    /** What an etcd snapshot holds. */
    snapshot: () => ({ version, objects: new Map(objects) }),
    /** Goes back to a snapshot, its version counter too. */
    restore: (saved: { version: number; objects: Map<string, Stored> }): void => {
      version = saved.version;
      compacted = version;
      history = [];
      objects = new Map(saved.objects);
    },
  };
};
