import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePortBase, startScript } from '../stack/scripts.ts';
import { atMost, type Figure } from './figure.ts';

const limitMs = 1_200_000;

/**
 * How long ./hack/up takes to the guest's own word that it is up, when everything that is built is in the cache: a stack of its own, begun
 * with nothing, removed afterwards. The first run fills the cache where that is cold, and is not measured.
 */
export const benchUp = async (tell: (doing: string) => void): Promise<Figure[]> => {
  const took: number[] = [];
  for (const round of ['to fill the cache', 'measured']) {
    tell(`./hack/up, ${round}`);
    const dir = await mkdtemp(join(tmpdir(), 'strato-bench-up-'));
    const env = { STRATO_HOME: join(dir, '.strato'), STRATO_PORT_BASE: String(await freePortBase(10)) };
    try {
      const sinceMs = performance.now();
      const { code, said } = await startScript('up', [], env, limitMs).ended;
      if (code !== 0 || !said.includes('STRATO ready')) throw new Error(`./hack/up ended with ${code}:\n${said.slice(-2_000)}`);
      took.push((performance.now() - sinceMs) / 1_000);
    } finally {
      await startScript('down', ['--purge'], env, limitMs).ended;
      await rm(dir, { recursive: true, force: true });
    }
  }
  return [atMost('up', 'warm ./hack/up to a Ready VM whose guest is up', took.at(-1) ?? Number.NaN, 's', 45)];
};
