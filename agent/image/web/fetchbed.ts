import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openPartial } from '../partial.ts';
import { type Fetched, type FetchLimits, fetchTo } from './fetch.ts';
import { makeGuard, type Resolve } from './guard.ts';
import { openTestWeb, type TestWeb } from './testweb.ts';

/** What one download of a test may differ in. `heard` gets how much has arrived. */
export type FetchChoices = {
  limits?: { [key in keyof FetchLimits]?: FetchLimits[key] };
  free?: number;
  sha512?: boolean;
  signal?: AbortSignal;
  heard?: number[];
  bootId?: string;
  allowed?: string[];
  resolve?: Resolve;
};

/** A web server and a folder for downloads; `fetchIt` twice on one folder is a second attempt, as by an agent that was restarted. */
export type FetchBed = AsyncDisposable & {
  web: TestWeb;
  fetchIt: (url: string, choices?: FetchChoices) => Promise<Fetched>;
  /** What has arrived. */
  bytes: () => Promise<Buffer>;
  overwrite: (bytes: Buffer) => Promise<void>;
};

const limits: FetchLimits = { connectMs: 5_000, idleMs: 5_000, totalMs: 20_000, maxRedirects: 3, resumes: 3, maxBytes: 10_000_000, keepFreeBytes: 0 };

/** Opens what a test of downloads needs. */
export const openFetchBed = async (): Promise<FetchBed> => {
  const web = await openTestWeb();
  const folder = await mkdtemp(join(tmpdir(), 'strato-fetch-'));
  return {
    web,
    fetchIt: async (url, choices = {}) => {
      await using partial = await openPartial(folder, choices.bootId ?? 'boot-1');
      return await fetchTo({
        url, partial, sha512: choices.sha512 ?? false, limits: { ...limits, ...choices.limits },
        guard: makeGuard({ allowed: choices.allowed ?? ['127.0.0.1'], ...(choices.resolve ? { resolve: choices.resolve } : {}) }),
        freeBytes: async () => choices.free ?? Number.MAX_SAFE_INTEGER,
        progress: (received) => void choices.heard?.push(received),
      }, choices.signal ?? AbortSignal.timeout(30_000));
    },
    bytes: () => readFile(join(folder, 'fetched')),
    overwrite: (bytes) => writeFile(join(folder, 'fetched'), bytes),
    [Symbol.asyncDispose]: async () => {
      await web.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
};
