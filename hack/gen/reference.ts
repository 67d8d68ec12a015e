import { toCrd } from '#crds/v1alpha1/crd.ts';
import { apiVersion, type Kind } from '#crds/v1alpha1/meta.ts';
import { type Structural, toStructural } from '#crds/v1alpha1/structural.ts';
import { generated, table } from './markdown.ts';

type Row = { path: string; schema: Structural; required: boolean; frozen: boolean };

/** docs/reference/KIND.md: every field of a kind, from the schema that the API server gets. */
export const referencePage = (kind: Kind): string => {
  const { names, scope } = toCrd(kind).spec;
  const spec = toStructural(kind.spec, 'spec');
  const status = toStructural(kind.status, 'status');
  const specRows = rowsUnder(spec, 'spec', isFrozen(spec));
  return `${generated(`crds/v1alpha1/${kind.singular}.ts`)}
# ${kind.kind}

${kind.description}

\`apiVersion: ${apiVersion}\`, ${scope === 'Namespaced' ? 'namespaced' : 'cluster-scoped'}; for kubectl also ${names.shortNames.map((name) => `\`${name}\``).join(', ')}. All of Strato's kinds together: \`kubectl get strato\`.

## spec

${spec.description ?? ''} A field with * is required. \`[]\` is an item of the list. Change says whether an edit of a stored object is accepted.

${table(['Field', 'Type', 'Default', 'Bounds', 'Change', 'Description'], specRows.map((row) => [
    `\`${row.path}\`${row.required ? ' *' : ''}`, typeOf(row.schema), defaultOf(row.schema), boundsOf(row.schema), row.frozen ? 'no' : 'yes', row.schema.description ?? '',
  ]))}
${rulesOf([{ path: 'spec', schema: spec, required: true, frozen: false }, ...specRows])}
## status

${status.description ?? ''}

${table(['Field', 'Type', 'Description'], rowsUnder(status, 'status', false).map(({ path, schema }) => [`\`${path}\``, typeOf(schema), schema.description ?? '']))}

## Columns of \`kubectl get\`

${table(['Column', 'From', 'Shown', 'Meaning'], kind.columns.map(({ name, jsonPath, wide, description }) => [name, `\`${jsonPath}\``, wide === true ? 'with -o wide' : 'always', description]))}
`;
};

/** docs/reference/README.md. */
export const referenceIndex = (kinds: readonly Kind[]): string => `${generated('crds/v1alpha1')}
# API reference

Group and version: \`${apiVersion}\`. The same text is at hand as \`kubectl explain vm.spec\`.

${table(['Kind', 'Short names', 'Scope', 'What'], kinds.map((kind) => [`[${kind.kind}](${kind.singular}.md)`, kind.shortNames.join(', '), kind.scope, kind.description]))}

kubectl and server-side apply (Argo CD, Flux) refuse a field that does not exist. Other clients get it dropped with a warning, unless they ask for
\`fieldValidation=Strict\`. What conditions mean and what to do about them: [conditions](../conditions.md).
`;

const rowsUnder = (schema: Structural, path: string, frozen: boolean): Row[] => {
  const required = new Set(schema.required);
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    const row = { path: `${path}.${name}`, schema: child, required: required.has(name), frozen: frozen || isFrozen(child) };
    return [row, ...rowsUnder(child.items ?? child, child.items ? `${row.path}[]` : row.path, row.frozen)];
  });
};

const isFrozen = ({ 'x-kubernetes-validations': rules = [] }: Structural): boolean => rules.some(({ rule }) => rule.startsWith('self == oldSelf'));

const typeOf = (schema: Structural): string => {
  if (schema.type !== 'array') return schema.enum ? 'enum' : schema.type;
  const of = schema.items ? typeOf(schema.items) : '';
  const keys = schema['x-kubernetes-list-map-keys'];
  return keys ? `list of ${of} by ${keys.join(', ')}` : `list of ${of}`;
};

const defaultOf = ({ default: value, type }: Structural): string => (value === undefined || type === 'object' ? '' : `\`${JSON.stringify(value).replaceAll('"', '')}\``);

const boundsOf = (schema: Structural): string => {
  const { type, pattern, items } = schema;
  const of = type === 'array' && items?.enum ? items : schema;
  const parts = [
    of.enum?.map((each) => `\`${each}\``).join(', '),
    range(schema.minimum, schema.maximum, ''),
    range(schema.minLength, schema.maxLength, ' characters'),
    range(schema.minItems, schema.maxItems, ' items'),
    // A rule about the value alone says it better than a pattern.
    ...(type === 'string' ? rulesAbout(schema) : []),
    pattern && type === 'string' && rulesAbout(schema).length === 0 ? `\`${pattern}\`` : undefined,
  ];
  return parts.filter((part) => part !== undefined && part !== '').join('; ');
};

const range = (least: number | undefined, most: number | undefined, unit: string): string | undefined => {
  if (most === undefined) return undefined;
  return least === undefined || least === 0 && unit !== '' ? `at most ${most}${unit}` : `${least} to ${most}${unit}`;
};

const rulesAbout = ({ 'x-kubernetes-validations': rules = [] }: Structural): string[] =>
  rules.filter(({ rule }) => !rule.includes('oldSelf')).map(({ message }) => message);

const rulesOf = (rows: readonly Row[]): string => {
  const rules = rows.flatMap(({ path, schema }) => [
    ...(schema['x-kubernetes-validations'] ?? []).map(({ message }) => ({ path, message })),
    ...(schema.items?.['x-kubernetes-validations'] ?? []).map(({ message }) => ({ path: `${path}[]`, message })),
  ]);
  if (rules.length === 0) return '';
  const lines = rules.map(({ path, message }) => `- \`${path}\`: ${message}`);
  return `\nRules that the API server holds, in its words:\n\n${[...new Set(lines)].join('\n')}\n`;
};
