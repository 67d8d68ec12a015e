import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import type { OnProgress } from '../cache/progress.ts';
import { ensureArm64Guest, ensureGuest, ensureHardwareGuest } from '../guest/guest.ts';
import { ensureServers } from '../servers/build.ts';

const guest = z.object({ disk: z.string(), digest: z.string(), kernel: z.string(), initrd: z.string() });
const guests = z.object({ small: guest, hardware: guest, arm64: guest });

/** The guests that tests boot. */
export type Guests = z.infer<typeof guests>;

const told = 'STRATO_TEST_GUESTS';

const ensureGuests = async (onProgress: OnProgress): Promise<Guests> => {
  const [small, hardware, arm64] = await Promise.all([ensureGuest(onProgress), ensureHardwareGuest(onProgress), ensureArm64Guest(onProgress)]);
  return { small, hardware, arm64 };
};

/**
 * Builds the servers and the guests that the cache lacks, before the first suite: no suite's deadline has to hold a build, and apt is
 * asked once a run for what a guest is made of. What there is goes to the workers by their environment.
 */
export const makeArtifacts = async (): Promise<void> => {
  const tell: OnProgress = ({ what, is, seconds }) => {
    if (is === 'made' || (is === 'making' && seconds > 0 && seconds % 30 === 0)) process.stderr.write(`${what}: ${is}, ${seconds} s\n`);
  };
  // Agents and operators are started by the hundred.
  process.env['NODE_COMPILE_CACHE'] ??= join(tmpdir(), 'strato-compiled');
  await ensureServers(tell);
  // Elsewhere none can be built; the suites that need one say so.
  if (process.arch === 'x64') process.env[told] = JSON.stringify(await ensureGuests(tell));
};

/** The guests, which `makeArtifacts` has made. Faults: those of `ensureGuest` when nobody called that. */
export const theGuests = async (): Promise<Guests> => {
  const known = process.env[told];
  return known === undefined ? ensureGuests(() => undefined) : guests.parse(JSON.parse(known));
};
