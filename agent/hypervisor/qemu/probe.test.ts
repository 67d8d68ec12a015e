import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { proveQemu } from './probe.ts';

describe('the probe on a slow machine', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'strato-probe-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  /** A QEMU whose probe guests take so long, in seconds; they end with `code`. */
  const qemu = async (name: string, took: { kvm: number; tcg: number }, code: number): Promise<string> => {
    const file = join(folder, name);
    const models = '{"return": [{"name": "max", "unavailable-features": []}]}';
    await writeFile(file, `#!/bin/sh
case "$*" in
  -version) echo 'QEMU emulator version 7.2.22'; exit ;;
  '-machine help') echo 'q35 Standard PC (alias of pc-q35-7.2)'; echo 'virt QEMU ARM (alias of virt-7.2)'; exit ;;
  *'-qmp stdio'*) echo '${models}'; exit ;;
  *'-accel kvm'*) seconds=${took.kvm} ;;
  *) seconds=${took.tcg} ;;
esac
sleep "$seconds" </dev/null >/dev/null 2>&1 & trap 'kill $!' EXIT; wait $!; trap - EXIT
exit ${code}
`, { mode: 0o755 });
    return file;
  };
  const kept = () => join(folder, 'verdict.json');
  const prove = async (programs: Parameters<typeof proveQemu>[0]['programs'], wanted: 'kvm' | null, times: { guestMs: number; controlMs: number }) =>
    (await proveQemu({ programs, host: 'amd64', bootId: 'b', wanted, verdictFile: kept(), times }, AbortSignal.timeout(60_000))).boards;

  test('an accelerator is not given up while software emulation is no quicker', async () => {
    const amd64 = await qemu('slow', { kvm: 0.5, tcg: 1.5 }, 85);
    expect(await prove({ amd64 }, 'kvm', { guestMs: 10, controlMs: 30_000 })).toMatchObject({ amd64: { accelerators: ['kvm', 'tcg'] } });
  }, 60_000);

  test('an accelerator whose guest hangs where software emulation runs is none', async () => {
    const amd64 = await qemu('broken', { kvm: 60, tcg: 0 }, 85);
    expect(await prove({ amd64 }, 'kvm', { guestMs: 10, controlMs: 30_000 })).toMatchObject({ amd64: { accelerators: ['tcg'] } });
    expect(existsSync(kept())).toBe(true);
  }, 60_000);

  test('a QEMU that can not be started any more is told, and no guest of it is left', async () => {
    const amd64 = await qemu('gone', { kvm: 0, tcg: 0 }, 85);
    await writeFile(amd64, (await readFile(amd64, 'utf8')).replace("'-machine help')", `'-machine help') sleep 0.5; rm '${amd64}';`));
    await expect(prove({ amd64 }, 'kvm', { guestMs: 10, controlMs: 30_000 })).rejects.toMatchObject({ code: 'ENOENT' });
  }, 60_000);

  test('what was not found out in time is not taken for the rest of the boot', async () => {
    const [amd64, arm64] = [await qemu('quick', { kvm: 0, tcg: 0 }, 85), await qemu('late', { kvm: 0, tcg: 60 }, 0)];
    expect(Object.keys(await prove({ amd64, arm64 }, null, { guestMs: 10, controlMs: 3_000 }))).toEqual(['amd64']);
    expect(existsSync(kept())).toBe(false);
  }, 60_000);
});
