import { readFile } from 'node:fs/promises';
import { z } from 'zod';

const event = z.object({
  verb: z.string(),
  user: z.object({ username: z.string() }),
  objectRef: z.object({
    resource: z.string(), subresource: z.string().default(''), namespace: z.string().default(''), name: z.string().default(''), apiGroup: z.string().default(''),
  }).optional(),
  responseStatus: z.object({ code: z.number() }).optional(),
  requestReceivedTimestamp: z.string(),
});

/** One finished request as the audit log has it. Source: audit.k8s.io/v1 Event. */
export type AuditEvent = z.output<typeof event>;

/** Who the operator is in the audit log. */
export const operatorUser = 'system:serviceaccount:strato-system:strato-operator';

const writing = new Set(['create', 'update', 'patch', 'delete', 'deletecollection']);

/** Reads an audit log from its start; a half-written last line is left out. */
export const readAudit = async (file: string): Promise<AuditEvent[]> =>
  (await readFile(file, 'utf8')).split('\n').slice(0, -1).map((line) => event.parse(JSON.parse(line)));

/** The successful writes of a user. */
export const writesOf = (events: readonly AuditEvent[], username: string): AuditEvent[] =>
  events.filter(({ verb, user, responseStatus }) => user.username === username && writing.has(verb) && (responseStatus?.code ?? 0) < 300);
