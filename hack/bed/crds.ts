import { join } from 'node:path';
import { z } from 'zod';
import type { Kube } from '#operator/kube/kube.ts';
import { applyFolder, pathOfManifest } from './apply.ts';
import { until } from './until.ts';

const folder = join(import.meta.dirname, '..', '..', 'crds', 'generated');
const crd = z.object({
  spec: z.object({ group: z.string(), names: z.object({ plural: z.string() }), versions: z.array(z.object({ name: z.string() })).min(1) }),
  status: z.object({ conditions: z.array(z.object({ type: z.string(), status: z.string() })).nullish() }).optional(),
});

/** Applies everything in crds/generated server-side and waits until each CRD is established and its resource answers. */
export const installCrds = async (kube: Kube): Promise<void> => {
  const objects = await applyFolder(kube, folder);
  await Promise.all(objects.filter(({ kind }) => kind === 'CustomResourceDefinition').map((object) =>
    until(`${object.metadata.name} to be served`, async () => {
      const { spec, status } = crd.parse(await kube.request('GET', pathOfManifest(object)));
      if (status?.conditions?.find(({ type }) => type === 'Established')?.status !== 'True') return false;
      await kube.request('GET', `/apis/${spec.group}/${spec.versions[0]?.name}/${spec.names.plural}`, { query: { limit: 1 } });
      return true;
    }, 30_000)));
};
