import { digestOf } from '#crds/kit/digest.ts';
import { group, type Kind, version } from './meta.ts';
import { type Structural, toStructural } from './structural.ts';

/** The annotation with the digest of a CRD's schema. The operator is not Ready on a CRD whose revision is not its own. */
export const revisionAnnotation = 'strato.dev/schema-revision';

/** A column of `kubectl get`; priority 1 shows only with `-o wide`. */
export type PrinterColumn = { name: string; type: string; jsonPath: string; description: string; priority?: number };

/** The part of apiextensions.k8s.io/v1 CustomResourceDefinition that Strato uses. */
export type CustomResourceDefinition = {
  apiVersion: 'apiextensions.k8s.io/v1';
  kind: 'CustomResourceDefinition';
  metadata: { name: string; annotations: Record<string, string> };
  spec: {
    group: string;
    names: { kind: string; listKind: string; plural: string; singular: string; shortNames: string[]; categories: string[] };
    scope: Kind['scope'];
    versions: {
      name: string;
      served: boolean;
      storage: boolean;
      additionalPrinterColumns: PrinterColumn[];
      subresources: { status: Record<string, never> };
      schema: { openAPIV3Schema: RootSchema };
    }[];
  };
};

/** The schema of a whole object. `metadata` takes no description: the API server has its own. */
export type RootSchema = Omit<Structural, 'properties'> & { properties: Record<string, Structural | { type: 'object' | 'string'; description?: string }> };

/** The CustomResourceDefinition of a kind: equal input, equal output. Faults: `SchemaNotStructural`. */
export const toCrd = (kind: Kind): CustomResourceDefinition => {
  const schema = rootSchema(kind);
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${kind.plural}.${group}`, annotations: { [revisionAnnotation]: digestOf(schema) } },
    spec: {
      group,
      names: {
        kind: kind.kind, listKind: `${kind.kind}List`, plural: kind.plural, singular: kind.singular,
        shortNames: [...kind.shortNames], categories: ['strato'],
      },
      scope: kind.scope,
      versions: [{
        name: version, served: true, storage: true,
        additionalPrinterColumns: kind.columns.map(({ wide, ...column }) => (wide === true ? { ...column, priority: 1 } : column)),
        subresources: { status: {} },
        schema: { openAPIV3Schema: schema },
      }],
    },
  };
};

const rootSchema = (kind: Kind): RootSchema => {
  const spec = toStructural(kind.spec, 'spec');
  const status = toStructural(kind.status, 'status');
  return {
    type: 'object',
    description: kind.description,
    required: ['spec'],
    properties: {
      apiVersion: { type: 'string', description: 'Version of the schema of this object: strato.dev/v1alpha1.' },
      kind: { type: 'string', description: `The kind of this object: ${kind.kind}.` },
      metadata: { type: 'object' },
      // A spec without required members may be left out, as zod's prefault({}) says too.
      spec: spec.required === undefined ? { ...spec, default: {} } : spec,
      // The default must sit on status itself: nested alone it does nothing, and Flux calls a fresh object Current.
      status: { ...status, default: { observedGeneration: -1 }, 'x-kubernetes-map-type': 'atomic' },
    },
  };
};
