import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';

const envelope = z.strictObject({ version: z.literal(1), checksum: z.string(), body: z.unknown() });

/** A value as a text that shows every damage: a version and a checksum beside it. Pure. */
export const seal = (body: unknown): string => `${JSON.stringify({ version: 1, checksum: digestOf(body), body })}\n`;

/** The value of a sealed text; undefined when the text is damaged, of another version or of another form. Pure. */
export const unseal = <T extends z.ZodType>(text: string, form: T): z.output<T> | undefined => {
  const outer = envelope.safeParse(jsonOf(text));
  if (!outer.success || digestOf(outer.data.body) !== outer.data.checksum) return undefined;
  const inner = form.safeParse(outer.data.body);
  return inner.success ? inner.data : undefined;
};

const jsonOf = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};
