import type { conditionTypes } from '#crds/v1alpha1/conditiontypes.ts';
import type { reasons } from '#crds/v1alpha1/reasons.ts';
import { generated, table } from './markdown.ts';

/** docs/conditions.md: each condition type, and each reason with what to do about it. Reasons go by the alphabet. */
export const conditionsPage = (types: typeof conditionTypes, words: typeof reasons): string => `${generated('crds/v1alpha1/conditiontypes.ts and crds/v1alpha1/reasons.ts')}
# Conditions

\`kubectl describe vm NAME\` shows them; \`kubectl wait --for=condition=Ready vm/NAME\` waits for one. \`message\` says what is meant in this case,
\`observedGeneration\` which edit of the spec it is about. Scripts may rely on type, status and reason, never on a message.

Ready=Unknown means that nobody can tell: the guest may well run, and nothing is started elsewhere.

## Types

${table(['Type', 'On', 'True means'], Object.entries(types).map(([type, [kinds, meaning]]) => [type, kinds.join(', '), meaning]))}

## Reasons

Part is the condition that is False by this reason too, beside Ready.

${table(['Reason', 'Meaning', 'What to do', 'Part'], Object.entries(words).toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([reason, [meaning, remedy, part = '']]) => [reason, meaning, remedy, part]))}
`;
