import { expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');
const run = (...suites: string[]) => {
  const script = ['set -euo pipefail', '. hack/lib/suites.sh', ...suites.map((each, at) => `suite s${at} sh -c '${each}'`), 'tally'].join('\n');
  const { stdout, status } = spawnSync('bash', ['-c', script], { cwd: root, encoding: 'utf8', timeout: 20_000 });
  return { last: stdout.trimEnd().split('\n').at(-1), status };
};

test.each<[string, string[], string, number]>([
  ['what passed is added up', ['echo 3 passed, 0 failed', 'echo 4 passed, 0 failed'], '7 passed, 0 failed', 0],
  ['what failed too', ['echo 3 passed, 1 failed; exit 1', 'echo 4 passed, 2 failed; exit 1'], '7 passed, 3 failed', 1],
  ['a check that is silent passes', ['true', 'echo 4 passed, 0 failed'], '4 passed, 0 failed', 0],
  ['a check that fails is a failure, and the rest still runs', ['exit 2', 'echo 4 passed, 0 failed'], '4 passed, 1 failed', 1],
  ['a suite that dies without a tally is a failure', ['kill -9 $$'], '0 passed, 1 failed', 1],
  ['a suite that ends badly and tells of no failure is one', ['echo 4 passed, 0 failed; exit 1'], '4 passed, 1 failed', 1],
  ['only the last tally of a suite counts', ['echo 9 passed, 9 failed; echo 1 passed, 0 failed'], '1 passed, 0 failed', 0],
])('%s', (_, suites, last, status) => {
  expect(run(...suites)).toEqual({ last, status });
});
