// The agent's process as its user meets it: help, checks, refusals, its end. Needs root.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';

const waitMs = 60_000;
type Running = { child: ChildProcess; said: () => string; ended: Promise<number | null> };

describe('the agent', () => {
  let folder: string;
  const running: Running[] = [];
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-agent-'));
  });
  afterEach(async () => {
    for (const { child, ended } of running.splice(0)) {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await ended;
    }
    await rm(folder, { recursive: true });
  });

  const run = (...args: string[]): Running => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH } });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    const started = { child, said: () => said, ended: once(child, 'close', { signal: AbortSignal.timeout(2 * waitMs) }).then(() => child.exitCode) };
    running.push(started);
    return started;
  };
  /** A configuration that would run: its operator is a port where nobody listens. */
  const config = async (over: Record<string, string> = {}): Promise<string> => {
    const file = join(folder, 'config.toml');
    const keys = { control_plane_url: 'https://127.0.0.1:9', token_file: join(folder, 'token'), state_dir: join(folder, 'state'), qemu_socket_dir: join(folder, 's'), ...over };
    await writeFile(join(folder, 'token'), 'abc.def.ghi\n');
    await writeFile(file, Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join(''));
    return file;
  };
  const end = async ({ said, ended }: Running) => ({ code: await ended, said: said() });

  test('--help tells every key', async () => {
    const { code, said } = await end(run('--help'));
    expect(code).toBe(0);
    for (const key of ['control_plane_url', 'token_file', 'state_dir', 'unix_ids', '--check-config', 'STRATO_AGENT_ENABLE_KVM']) expect(said).toContain(key);
  });

  test('--check-config shows what is in effect, and touches nothing', async () => {
    const { code, said } = await end(run('--config', await config(), '--check-config', '--log-level', 'debug'));
    expect([code, said]).toEqual([0, expect.stringMatching(/log_level = "debug" +# flag --log-level/)]);
    await expect(rm(join(folder, 'state'))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test.each([
    [{ network_mode: 'ovn' }, /network_mode = "ovn": ovn is not built yet; use user/],
    [{ colour: 'blue' }, /colour: there is no such key \(.*config\.toml\)/],
    [{ forward_ports: '5-1' }, /forward_ports = "5-1": must rise/],
  ])('%j is refused, by its name', async (over, why) => {
    const { code, said } = await end(run('--config', await config(over)));
    expect([code, said]).toEqual([1, expect.stringMatching(why)]);
  });

  test('a folder that can not be made is named', async () => {
    await writeFile(join(folder, 'file'), '');
    const { code, said } = await end(run('--config', await config({ state_dir: join(folder, 'file', 'state') })));
    expect([code, said]).toEqual([1, expect.stringMatching(/state_dir .*file\/state can not be made/)]);
  });

  test('without its operator it runs on and tries again; SIGTERM ends it with 0', async () => {
    const agent = run('--config', await config());
    await until('a second attempt', () => agent.said().includes('the operator can not be reached') && agent.said().includes('what QEMU can do on this node'), waitMs);
    agent.child.kill('SIGTERM');
    expect((await end(agent)).code).toBe(0);
    expect(agent.said()).toContain('agent ended; guests go on');
  });

  test('an operator that can not be reached is told of once, without the credential', async () => {
    const agent = run('--config', await config());
    await until('an attempt', () => agent.said().includes('the operator can not be reached'), waitMs);
    expect(agent.said()).not.toContain('abc.def.ghi');
  });

  test.each([['token', ''], ['token', 'a b\nc'], ['token', '\u0000'.repeat(100)]])('a %s file that holds %j is named and not quoted, and read again', async (_what, content) => {
    const file = await config();
    await writeFile(join(folder, 'token'), content);
    const agent = run('--config', file);
    await until('the complaint', () => /token_file .*token does not hold a bearer token/.test(agent.said()), waitMs);
  });

  test('a second agent on one state folder, or on one image cache, refuses to start; the first goes on', async () => {
    const first = run('--config', await config());
    await until('the first to start', () => first.said().includes('agent started'), waitMs);
    const second = await end(run('--config', await config()));
    expect(second).toMatchObject({ code: 1, said: expect.stringMatching(/another agent runs on this folder: it holds .*state\/lock; end that one first/) });
    await mkdir(join(folder, 'other'));
    const third = await end(run('--config', await config({ state_dir: join(folder, 'other'), image_cache_dir: join(folder, 'state', 'images') })));
    expect(third).toMatchObject({ code: 1, said: expect.stringMatching(/it holds .*images\/lock/) });
    expect(first.child.exitCode).toBeNull();
  });

  test('killed, its folders are free for the next one at once', async () => {
    const first = run('--config', await config());
    await until('the first to start', () => first.said().includes('agent started'), waitMs);
    first.child.kill('SIGKILL');
    const second = run('--config', await config());
    await until('the second to start', () => second.said().includes('agent started'), waitMs);
  });
});
