// What keeps the records of a machine short while no agent lives: its supervisor, a real shell on real file systems.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFile, chmod, chown, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import { isThere } from '../../storage/durable.ts';
import { launchArgs, startFile } from './launcher.ts';

const unixId = 100_781;
const waitMs = 60_000;
const mebibyte = 1024 * 1024;

/** The processes of a session. Source: proc(5), /proc/PID/stat. */
const ofSession = async (session: number): Promise<number[]> => {
  const found: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    const [state, , , of] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    if (Number(of) === session && state !== 'Z') found.push(pid);
  }
  return found;
};

const kill = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended in the meantime.
  }
};

describe('a machine without an agent', () => {
  const started: { folder: string; supervisor: ChildProcess }[] = [];
  afterEach(async () => {
    for (const { folder, supervisor } of started.splice(0)) {
      if (supervisor.pid !== undefined) for (const pid of await ofSession(supervisor.pid)) kill(pid);
      await rm(folder, { recursive: true });
    }
  });

  /** A supervisor over a shell that takes the part of QEMU; its naps are a tenth of a second long. */
  const start = async (on: string, qemu: string, prepare = async (_tools: string): Promise<void> => {}) => {
    const folder = await mkdtemp(join(on, 'strato-tend-'));
    const directory = join(folder, 'vm');
    const run = join(directory, 'runs', 'a');
    await mkdir(run, { recursive: true });
    await writeFile(join(run, startFile), '');
    for (const each of [folder, directory]) await chmod(each, 0o750);
    for (const each of [folder, directory]) await chown(each, 0, unixId);
    await writeFile(join(directory, 'serial.log'), '');
    await chown(join(directory, 'serial.log'), 0, unixId);
    await chmod(join(directory, 'serial.log'), 0o660);
    await writeFile(join(folder, 'sleep'), '#!/bin/sh\nexec /bin/sleep 0.1\n');
    await chmod(join(folder, 'sleep'), 0o755);
    await prepare(folder);
    const stderr = await open(join(run, 'stderr'), 'a');
    const args = launchArgs({ directory, run: 'runs/a', startId: 'a', unixId, procs: [], command: ['/bin/sh', '-c', qemu] });
    const supervisor = spawn('/bin/sh', args, { detached: true, stdio: ['ignore', 'ignore', stderr.fd], env: { PATH: `${folder}:${process.env.PATH}` } });
    started.push({ folder, supervisor });
    await once(supervisor, 'spawn');
    await stderr.close();
    const files = { serial: join(directory, 'serial.log'), events: join(run, 'events'), stderr: join(run, 'stderr'), exit: join(run, 'exit'), go: join(directory, 'go') };
    const size = async (name: 'serial' | 'events' | 'stderr') => (await stat(files[name])).size;
    return { supervisor, tools: folder, session: supervisor.pid ?? 0, files, size };
  };

  const flood = `
    echo begin >&2; echo begin
    head -c ${20 * mebibyte} /dev/zero | tr '\\0' s >> serial.log
    head -c ${20 * mebibyte} /dev/zero | tr '\\0' e
    head -c ${20 * mebibyte} /dev/zero | tr '\\0' w >&2
    while [ ! -e go ]; do echo waits >> serial.log; /bin/sleep 0.05; done
    echo end >&2; echo end; echo end >> serial.log
    exec /bin/sleep 1007`;

  test.each([['where ranges can be collapsed', tmpdir()], ['where they can not', '/dev/shm']])('that says without end is bounded, its last words stay, %s', async (_, on) => {
    const it = await start(on, flood);
    const consoleEnds = async (words: string) => (await readFile(it.files.serial, 'latin1')).endsWith(words);
    await until('short records', async () =>
      (await consoleEnds('waits\n')) && (await it.size('serial')) <= 16 * mebibyte && (await it.size('events')) <= 8 * mebibyte && (await it.size('stderr')) <= 8 * mebibyte, waitMs);
    // What is written in the instant of a copy may be lost, so its last words come afterwards.
    await writeFile(it.files.go, '');
    await until('its last words', () => consoleEnds('end\n'), waitMs);
    for (const name of ['events', 'stderr'] as const) {
      const text = await readFile(it.files[name], 'latin1');
      expect([text.startsWith('begin\n'), text.endsWith('end\n')]).toEqual([true, true]);
    }
    // It goes on where it was.
    await appendFile(it.files.serial, 'x'.repeat(20 * mebibyte));
    await until('a short console', async () => (await it.size('serial')) <= 16 * mebibyte, waitMs);
    expect(it.supervisor.exitCode).toBeNull();
  });

  test('whose records an agent has made short or taken away in between loses nothing of the others, and is bounded afterwards', async () => {
    const it = await start(tmpdir(), 'exec /bin/sleep 1007', async (tools) => {
      // The look at all of them, once, as it would be before the agent's.
      const stale = `#!/bin/sh\n[ $# -gt 2 ] && [ -e go ] && mkdir "$0.told" 2>/dev/null && exec echo "${20 * mebibyte} $2 ${20 * mebibyte} is-gone ${40 * mebibyte} total"\n[ ! -d "$0.told" ] || [ $# -lt 3 ] || : > "$0.again"\nexec /usr/bin/wc "$@"\n`;
      await writeFile(join(tools, 'wc'), stale, { mode: 0o755 });
    });
    await until('the machine', () => isThere(it.files.events), waitMs);
    const words = 'x'.repeat(3 * mebibyte - 5) + 'last\n';
    await appendFile(it.files.serial, words);
    await writeFile(it.files.go, '');
    await until('the look after the one that is stale', () => isThere(join(it.tools, 'wc.again')), waitMs);
    expect((await readFile(it.files.serial, 'latin1')) === words).toBe(true);
    await appendFile(it.files.serial, 'x'.repeat(20 * mebibyte));
    await until('a short console', async () => (await it.size('serial')) <= 16 * mebibyte, waitMs);
  });

  test.each([['0', '0\n'], ['3', '3\n']])('whose QEMU exits with %s is told so, and no word of the supervisor is among the last of QEMU', async (code, told) => {
    const it = await start(tmpdir(), `/bin/sleep 0.3; echo last >&2; exit ${code}`);
    await once(it.supervisor, 'exit', { signal: AbortSignal.timeout(waitMs) });
    expect([await readFile(it.files.exit, 'utf8'), await readFile(it.files.stderr, 'utf8')]).toEqual([told, 'last\n']);
  });

  test('that is killed is told at once, and nothing of it is left', async () => {
    // Its supervisor, which naps for longer than this test waits.
    const it = await start(tmpdir(), 'exec /bin/sleep 1007', (tools) => writeFile(join(tools, 'sleep'), '#!/bin/sh\nexec /bin/sleep 1008\n'));
    const pid = await until('the machine', async () => {
      for (const each of await ofSession(it.session)) if ((await readFile(`/proc/${each}/cmdline`, 'utf8').catch(() => '')) === '/bin/sleep\u00001007\u0000') return each;
      return undefined;
    }, waitMs);
    process.kill(pid, 'SIGKILL');
    await once(it.supervisor, 'exit', { signal: AbortSignal.timeout(waitMs) });
    expect(await readFile(it.files.exit, 'utf8')).toBe('137\n');
    expect(await ofSession(it.session)).toEqual([]);
  });
});
