import { z } from 'zod';
import type { Clock } from '#crds/kit/clock.ts';
import { asFault } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { revisionAnnotation, toCrd } from '#crds/v1alpha1/crd.ts';
import { kinds } from '#crds/v1alpha1/kinds.ts';
import { type Kind, version } from '#crds/v1alpha1/meta.ts';
import type { Kube } from './kube/kube.ts';

type Node = { properties?: Record<string, Node> | null | undefined; items?: Node | null | undefined };
const node: z.ZodType<Node> = z.lazy(() => z.object({ properties: z.record(z.string(), node).nullish(), items: node.nullish() }));

const installed = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).default({}) }),
  spec: z.object({ versions: z.array(z.object({ name: z.string(), schema: z.object({ openAPIV3Schema: node }) })) }),
});

/** Whether a CRD of the cluster has all that this build writes and reads; `lacks` names fields that it would prune. */
export type SchemaVerdict = { is: 'fits' } | { is: 'older'; lacks: string[] };

/** Compares a CRD of the cluster with that of this build. A newer one, that has more fields, fits. Pure; throws when it is no CRD. */
export const judgeSchema = (kind: Kind, crd: unknown): SchemaVerdict => {
  const ours = toCrd(kind);
  const { metadata, spec } = installed.parse(crd);
  if (metadata.annotations[revisionAnnotation] === ours.metadata.annotations[revisionAnnotation]) return { is: 'fits' };
  const theirs = new Set(paths(spec.versions.find(({ name }) => name === version)?.schema.openAPIV3Schema ?? {}));
  const lacks = ours.spec.versions.flatMap(({ schema }) => paths(node.parse(schema.openAPIV3Schema))).filter((path) => !theirs.has(path));
  return lacks.length === 0 ? { is: 'fits' } : { is: 'older', lacks };
};

const paths = ({ properties, items }: Node): string[] => [
  ...(items ? paths(items).map((path) => `[]${path}`) : []),
  ...Object.entries(properties ?? {}).flatMap(([name, child]) => [`.${name}`, ...paths(child).map((path) => `.${name}${path}`)]),
];

const lookMs = 60_000;
const retryMs = 2_000;

/**
 * Resolves when the CRDs of the cluster are not older than this build: fields that they lack would be pruned from every status. Goes on looking
 * each minute; `onVerdict` hears each verdict. Rejects only when `signal` aborts.
 */
export const awaitSchemas = async (parts: { kube: Kube; clock: Clock; log: Log; signal: AbortSignal; onVerdict: (fit: boolean) => void }): Promise<void> => {
  const { kube, clock, log, signal, onVerdict } = parts;
  let said = '';
  const look = async (): Promise<boolean> => {
    const older: string[] = [];
    for (const kind of kinds) {
      const { name } = toCrd(kind).metadata;
      const verdict = judgeSchema(kind, await kube.request('GET', `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`, { signal }));
      if (verdict.is === 'older') older.push(`${name} lacks ${verdict.lacks.slice(0, 5).join(', ')}`);
    }
    const sentence = older.join('; ');
    if (sentence !== said) log.warn({ why: sentence || 'they fit now' }, 'the CRDs of the cluster are older than this operator: apply those of its version');
    said = sentence;
    onVerdict(older.length === 0);
    return older.length === 0;
  };
  const tried = async (): Promise<boolean> => {
    try {
      return await look();
    } catch (thrown) {
      signal.throwIfAborted();
      const { message } = asFault(thrown, 'SchemaUnknown', 'read the CRDs');
      if (message !== said) log.warn({ cause: message }, 'the CRDs can not be read yet');
      said = message;
      return false;
    }
  };
  while (!(await tried())) await clock.sleep(retryMs, signal);
  const watch = async (): Promise<void> => {
    for (;;) {
      await clock.sleep(lookMs, signal);
      await tried();
    }
  };
  watch().catch(() => {}); // ended by the signal
};
