import { z } from 'zod';
import { messageOf } from '#crds/kit/fault.ts';
import { ledgerVersion } from './entry.ts';

/** The name of the file of the highest leaderEpoch that was seen. */
export const leaderFile = 'leader.json';

// One number, in every version so far; a later one may say more.
const form = z.object({ version: z.int().min(1), leaderEpoch: z.int().min(0) });

/** The highest leaderEpoch that was seen, as the text of its file. */
export const writeLeader = (leaderEpoch: number): string => `${JSON.stringify({ version: ledgerVersion, leaderEpoch })}\n`;

/** Reads that file. When it is damaged the orders of the entries still tell the most of it. */
export const readLeader = (text: string): { is: 'leader'; leaderEpoch: number } | { is: 'bad'; why: string } => {
  try {
    return { is: 'leader', leaderEpoch: form.parse(JSON.parse(text)).leaderEpoch };
  } catch (error) {
    return { is: 'bad', why: messageOf(error) };
  }
};
