import { group, type Kind, version } from '#crds/v1alpha1/meta.ts';

/** A REST resource. `group` is empty for the core API. */
export type Resource = { group: string; version: string; plural: string; namespaced: boolean };

/** The resource of a Strato kind. */
export const resourceOf = (kind: Pick<Kind, 'plural' | 'scope'>): Resource => ({ group, version, plural: kind.plural, namespaced: kind.scope === 'Namespaced' });

/** Leases; `coordination.k8s.io/v1`. */
export const leases: Resource = { group: 'coordination.k8s.io', version: 'v1', plural: 'leases', namespaced: true };
/** Events; `events.k8s.io/v1`. */
export const events: Resource = { group: 'events.k8s.io', version: 'v1', plural: 'events', namespaced: true };

/** Namespaces; core `v1`. */
export const namespaces: Resource = { group: '', version: 'v1', plural: 'namespaces', namespaced: false };

/** Which object, or which collection when `name` is unset; all namespaces when `namespace` is unset. */
export type At = { namespace?: string | undefined; name?: string | undefined; sub?: string | undefined };

/** The path of a collection, an object or a subresource. Names are escaped. */
export const pathOf = (resource: Resource, { namespace, name, sub }: At = {}): string =>
  [
    resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`,
    ...(resource.namespaced && namespace !== undefined ? ['namespaces', encodeURIComponent(namespace)] : []),
    resource.plural,
    ...(name === undefined ? [] : [encodeURIComponent(name)]),
    ...(sub === undefined ? [] : [sub]),
  ].join('/');

/** `namespace/name`, or `name` for a cluster-scoped object: the key of caches and queues. */
export const keyOf = ({ namespace, name }: { namespace?: string | undefined; name: string }): string => (namespace === undefined ? name : `${namespace}/${name}`);

/**
 * Orders two resourceVersions: negative when `a` is older. They are decimal numbers of any length; anything else compares as equal.
 * Source: KEP-5504, comparable resource versions.
 */
export const compareVersions = (a: string, b: string): number => {
  if (!/^[0-9]+$/.test(a) || !/^[0-9]+$/.test(b)) return 0;
  const difference = BigInt(a) - BigInt(b);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
};
