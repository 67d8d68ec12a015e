import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');
let dir = '';
beforeAll(async () => { dir = await mkdtemp(join(tmpdir(), 'strato-bootstrap-')); });
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Puts programs into a folder that comes first in PATH. */
const stub = async (programs: Record<string, string>) => {
  const bin = await mkdtemp(join(dir, 'bin-'));
  for (const [name, script] of Object.entries(programs)) await writeFile(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return bin;
};

const healthy = { id: 'echo 0', 'apt-get': ':', node: 'echo v20.0.0', npm: ':', go: 'echo go1.25.0', df: 'echo; echo dev 99999 1 99999 1% /' };

const check = (bin: string, env: Record<string, string> = {}, args = '') => {
  const result = spawnSync('bash', ['-c', `set -euo pipefail; . hack/lib/bootstrap.sh; check_machine ${args}`], {
    cwd: root, encoding: 'utf8', timeout: 20_000,
    env: { PATH: `${bin}:${process.env.PATH}`, HOME: dir, STRATO_HOME: join(dir, '.strato'), ...env },
  });
  return { code: result.status, said: result.stderr };
};

test('a machine with all that is needed passes in silence', async () => {
  expect(check(await stub(healthy))).toEqual({ code: 0, said: '' });
});

test('all that is missing is told at once, each with what to do', async () => {
  const bin = await stub({ ...healthy, id: 'echo 1000', node: 'echo v18.19.0', go: 'echo go1.24.9', df: 'echo; echo dev 9 1 100 1% /' });
  const { code, said } = check(bin);
  expect(code).toBe(1);
  const lines = said.trimEnd().split('\n');
  const problems = lines.slice(1).filter((_, index) => index % 2 === 0);
  expect(problems).toEqual([
    '  - this is not root',
    '  - Node.js >= 20 is missing (found: v18.19.0)',
    '  - Go >= 1.25 is missing (found: go1.24.9)',
    `  - only 100 MiB are free for ${dir}/.cache/strato`,
    `  - only 100 MiB are free for ${root}`,
    `  - only 100 MiB are free for ${dir}/.strato`,
  ]);
  expect(lines.slice(1).filter((_, index) => index % 2 === 1).every((line) => /^ {4}\S/.test(line))).toBe(true);
});

test.each([['devel go1.27-abcdef', 0], ['go1.25rc1', 0], ['go1.26.8', 0], ['go1.9', 1], ['', 1]])('Go that calls itself "%s"', async (version, code) => {
  expect(check(await stub({ ...healthy, go: `echo "${version}"` })).code).toBe(code);
});

test('a port in use is told with who uses it', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  try {
    const { code, said } = check(await stub(healthy), { STRATO_PORT_BASE: String(port) }, 'ports');
    expect(code).toBe(1);
    expect(said).toMatch(new RegExp(`port ${port} is used by \\S.* \\(process ${process.pid}\\)\n    end that, or`));
  } finally {
    server.close();
    await once(server, 'close');
  }
});

test.each(['/', '/data', 'here/.strato'])('STRATO_HOME=%s is refused', async (home) => {
  const { code, said } = check(await stub(healthy), { STRATO_HOME: home });
  expect(code).toBe(2);
  expect(said).toContain('STRATO_HOME');
});
