import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import type { Kube } from '#operator/kube/kube.ts';
import { pathOf } from '#operator/kube/resource.ts';

const manifest = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional() }),
});

/** A manifest: any Kubernetes object as YAML or JSON has it. */
export type Manifest = z.input<typeof manifest>;

/** The path of a manifest's object. Plurals follow English; that holds for all kinds that we apply. */
export const pathOfManifest = ({ apiVersion, kind, metadata: { name, namespace } }: Manifest): string => {
  const [group = '', version = ''] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  const plural = `${kind.toLowerCase()}s`.replace(/ys$/, 'ies');
  return pathOf({ group, version, plural, namespaced: namespace !== undefined }, { namespace, name });
};

/** Server-side apply of one object, as `kubectl apply --server-side --force-conflicts` does; gives the API server's answer. */
export const apply = (kube: Kube, object: Manifest, manager = 'strato-test'): Promise<unknown> =>
  kube.request('PATCH', pathOfManifest(object), { body: object, contentType: 'application/apply-patch+yaml', query: { fieldManager: manager, force: true } });

/** The documents of a YAML text. */
export const parseManifests = (text: string): Manifest[] =>
  parseAllDocuments(text).flatMap((document) => {
    const value: unknown = document.toJS();
    return value === null ? [] : [manifest.parse(value)];
  });

/** Applies every YAML file of a folder, in the order of their names; gives the objects. */
export const applyFolder = async (kube: Kube, dir: string): Promise<Manifest[]> => {
  const files = (await readdir(dir)).filter((name) => /\.ya?ml$/.test(name)).toSorted();
  const objects = (await Promise.all(files.map((name) => readFile(join(dir, name), 'utf8')))).flatMap(parseManifests);
  for (const object of objects) await apply(kube, object);
  return objects;
};
