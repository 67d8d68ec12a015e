import { z } from 'zod';
import { messageOf } from '#crds/kit/fault.ts';
import { uid } from './desired.ts';
import { maxFrameBytes } from './messages.ts';

/**
 * What became of one incoming frame. `unknown` is a type that this build does not know (a newer peer): it is logged
 * and ignored. `bad` breaks the rules of a known type: the session ends, unless it is `about` one VM alone, whose desire a newer
 * peer has written: that VM waits, and no other one.
 */
export type Parsed<T> = { is: 'message'; message: T } | { is: 'unknown'; type: string } | { is: 'bad'; why: string; about?: string };

/** Reads one text frame at the door. */
export const parseFrame = <T extends { type: string }>(schema: z.ZodDiscriminatedUnion<z.core.$ZodTypeDiscriminable[], 'type'> & z.ZodType<T>, text: string): Parsed<T> => {
  if (Buffer.byteLength(text) > maxFrameBytes) return { is: 'bad', why: `frame is larger than ${maxFrameBytes} bytes` };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return { is: 'bad', why: `not JSON: ${messageOf(error)}` };
  }
  const type = typeOf(json);
  if (type === undefined) return { is: 'bad', why: 'no string field "type"' };
  if (!knownTypes(schema).has(type)) return { is: 'unknown', type: type.slice(0, 64) };
  const result = schema.safeParse(json);
  if (result.success) return { is: 'message', message: result.data };
  const issue = result.error.issues[0];
  const about = desiredVmOf(json);
  return { is: 'bad', ...(about === undefined ? {} : { about }), why: `${type}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'invalid'}` };
};

/** Writes one message as a text frame. */
export const writeFrame = (message: { type: string }): string => JSON.stringify(message);

const anyDesire = z.object({ type: z.literal('desire'), object: z.object({ kind: z.literal('vm'), uid }) });

/** The VM that a desire is of, whatever else is in it. */
const desiredVmOf = (json: unknown): string | undefined => anyDesire.safeParse(json).data?.object.uid;

const typeOf = (json: unknown): string | undefined =>
  typeof json === 'object' && json !== null && 'type' in json && typeof json.type === 'string' ? json.type : undefined;

const knownTypes = (schema: z.ZodDiscriminatedUnion<z.core.$ZodTypeDiscriminable[], 'type'>): Set<unknown> =>
  new Set(schema.options.flatMap((option) => [...(option._zod.propValues['type'] ?? [])]));
