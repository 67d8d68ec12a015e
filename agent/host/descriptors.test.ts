import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { runTool } from './exec.ts';

// Takes every descriptor that is left, tries each runner, gives them back, and tries one again.
const script = `
  import { closeSync, openSync } from 'node:fs';
  const [root] = process.argv.slice(1);
  const { runTool } = await import(root + '/agent/host/exec.ts');
  const { runConfined } = await import(root + '/agent/image/tool.ts');
  const { takeStateLock } = await import(root + '/agent/host/statelock.ts');
  const soon = () => AbortSignal.timeout(20_000);
  const lock = { agentLock: '/dev/null', imagesLock: '/dev/null' };
  const told = async (job) => { try { await job(); return 'done'; } catch (thrown) { return thrown.code; } };
  const taken = [];
  try { for (;;) taken.push(openSync('/dev/null', 'r')); } catch {}
  const full = [
    await told(() => runTool('true', [], { signal: soon() })),
    await told(() => runConfined(['true'], { unixId: 100777, addressSpaceBytes: 2 ** 31, fileBytes: 1024, cpuSeconds: 5 }, '/', () => {}, soon())),
    await told(() => takeStateLock(lock, soon())),
  ];
  taken.forEach((each) => closeSync(each));
  console.log(JSON.stringify([...full, await told(() => runTool('true', [], { signal: soon() }))]));
`;

describe('an agent without a free descriptor', () => {
  test('goes on: each runner of tools says that it could not run one, and can later', async () => {
    // Node raises the soft limit to the hard one.
    const child = spawn('sh', ['-c', 'ulimit -n 128; exec "$@"', 'sh', process.execPath, '--input-type=module', '-e', script, process.cwd()], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [said, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')]);
    expect([said === '' ? said : JSON.parse(said), code]).toEqual([['ToolFailed', 'EMFILE', 'StateLockFailed', 'done'], 0]);
  });
});

describe('tools at once', () => {
  test('are bounded: of many sleepers the last wait for their turn, and one that waits too long is told so', async () => {
    const ending = new AbortController();
    const sleepers = Promise.allSettled(Array.from({ length: 64 }, () => runTool('sleep', ['1005'], { signal: ending.signal })));
    try {
      await expect(runTool('true', [], { signal: AbortSignal.timeout(300) })).rejects.toMatchObject({ code: 'ToolCut', message: 'true did not get its turn in time' });
      const waiting = runTool('true', [], { signal: AbortSignal.timeout(20_000) });
      ending.abort();
      expect(await waiting).toMatchObject({ code: 0 });
    } finally {
      ending.abort();
      await sleepers;
    }
  });
});
