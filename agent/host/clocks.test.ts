import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { readBootId } from './bootid.ts';
import { runTool } from './exec.ts';
import { hostMs } from './hostms.ts';

test('the monotonic clock is the same in another process', async () => {
  const module = new URL('./hostms.ts', import.meta.url).href;
  const before = hostMs();
  const { stdout } = await runTool(process.execPath, ['--input-type=module', '-e', 'const { hostMs } = await import(process.argv[1]); console.log(hostMs());', module], { signal: AbortSignal.timeout(20_000) });
  const after = hostMs();
  expect(Number(stdout)).toBeGreaterThanOrEqual(before);
  expect(Number(stdout)).toBeLessThanOrEqual(after);
});

test('the boot id is read twice alike, and nonsense is not one', async () => {
  expect(await readBootId()).toBe(await readBootId());
  const folder = await mkdtemp(join(tmpdir(), 'strato-bootid-'));
  try {
    await writeFile(join(folder, 'boot_id'), 'today\n');
    await expect(readBootId(join(folder, 'boot_id'))).rejects.toMatchObject({ code: 'HostUnreadable' });
    await expect(readBootId(join(folder, 'none'))).rejects.toMatchObject({ code: 'HostUnreadable' });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
