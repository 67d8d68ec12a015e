import { canonical } from '#crds/kit/digest.ts';
import type { Kube } from './kube.ts';
import { pathOf, type Resource } from './resource.ts';

/** The part of an object that a write needs: which one, and which version the decision was made on. */
export type Versioned = {
  metadata: { name: string; namespace?: string | undefined; resourceVersion: string; finalizers?: readonly string[] | undefined };
  status?: unknown;
};

/** How a write ended. `object` is the API server's answer: give it to `informer.accept`, so that we read what we wrote. */
export type Written = { is: 'written'; object: unknown } | { is: 'same' };

const mergePatch = 'application/merge-patch+json';

const isMap = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Applies a JSON merge patch. Pure. Source: RFC 7386, section 2. */
export const applyMerge = (target: unknown, patch: unknown): unknown => {
  if (!isMap(patch)) return patch;
  const result = new Map(Object.entries(isMap(target) ? target : {}));
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) result.delete(name);
    else if (value !== undefined) result.set(name, applyMerge(result.get(name), value));
  }
  return Object.fromEntries(result);
};

/**
 * The merge patch that makes `next` of `old`, with a null for every member that vanished; undefined when they are equal but for the order
 * of members. Lists are replaced whole. Undefined members count as absent. A merge patch can't store a null in an object, so `next` has none. Pure.
 */
export const mergeDiff = (old: unknown, next: unknown): unknown => {
  if (canonical(old) === canonical(next)) return undefined;
  if (!isMap(old) || !isMap(next)) return next;
  // Maps, not members: a key may be called toString.
  const [before, after] = [new Map(Object.entries(old)), new Map(Object.entries(next))];
  return Object.fromEntries(
    [...new Set([...before.keys(), ...after.keys()])].flatMap((name): [string, unknown][] => {
      const [from, to] = [before.get(name), after.get(name)];
      if (to === undefined) return from === undefined ? [] : [[name, null]];
      const change = from === undefined ? to : mergeDiff(from, to);
      return change === undefined ? [] : [[name, change]];
    }),
  );
};

const patch = async (kube: Kube, resource: Resource, { metadata }: Versioned, body: Record<string, unknown>, sub: string | undefined, signal: AbortSignal | undefined) =>
  ({ is: 'written', object: await kube.request('PATCH', pathOf(resource, { ...metadata, sub }), { body, contentType: mergePatch, signal }) }) as const;

/**
 * Makes `status` the status of the object, if the object is still of the version that was read; no request when nothing changed.
 * By JSON merge patch on `/status`: server-side apply answers 500 for a field that an older CRD lacks. KubeFault Conflict means: read again.
 */
export const patchStatus = async (kube: Kube, resource: Resource, object: Versioned, status: unknown, signal?: AbortSignal): Promise<Written> => {
  const diff = mergeDiff(object.status ?? {}, status);
  if (diff === undefined) return { is: 'same' };
  return patch(kube, resource, object, { metadata: { resourceVersion: object.metadata.resourceVersion }, status: diff }, 'status', signal);
};

/** Makes `finalizers` the finalizers of the object, under the same conditions as `patchStatus`. */
export const setFinalizers = async (kube: Kube, resource: Resource, object: Versioned, finalizers: readonly string[], signal?: AbortSignal): Promise<Written> => {
  if (canonical(object.metadata.finalizers ?? []) === canonical(finalizers)) return { is: 'same' };
  return patch(kube, resource, object, { metadata: { resourceVersion: object.metadata.resourceVersion, finalizers } }, undefined, signal);
};

/** Deletes an object, if it is still of the version that was read. With a finalizer on it it goes on until that is gone. */
export const deleteObject = async (kube: Kube, resource: Resource, { metadata }: { metadata: Versioned['metadata'] & { uid: string } }, signal?: AbortSignal): Promise<Written> => {
  const { uid, resourceVersion } = metadata;
  await kube.request('DELETE', pathOf(resource, metadata), { body: { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid, resourceVersion } }, signal });
  return { is: 'same' };
};
