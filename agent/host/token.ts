import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';

// RFC 6750, b64token; more than any ServiceAccount token, less than a header may hold.
const form = z.string().trim().regex(/^[A-Za-z0-9._~+/-]{1,8192}=*$/, 'does not hold a bearer token');

/** Reads the credential from its file, which is renewed while the agent lives. Faults: TokenUnreadable; never quotes what it read. */
export const readToken = async (file: string): Promise<string> => {
  try {
    const parsed = form.safeParse(await readFile(file, 'utf8'));
    if (parsed.success) return parsed.data;
  } catch (cause) {
    throw new Fault('TokenUnreadable', `token_file ${file} can not be read: ${messageOf(cause)}`, { cause });
  }
  throw new Fault('TokenUnreadable', `token_file ${file} does not hold a bearer token`);
};
