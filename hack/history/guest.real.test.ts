import { expect, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startMachine } from '../guest/machine.ts';
import { bootsOf, diaryGuest, guestKeys } from './guest.ts';

const bootMs = 240_000;

test('counts its boots on its disk, over reboots, power-offs and a QEMU that is killed', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'strato-diary-'));
  try {
    await writeFile(join(dir, 'base.raw'), diaryGuest());
    await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'disk.qcow2'], { cwd: dir });
    const disk = 'driver=qcow2,node-name=d,file.driver=file,file.filename=disk.qcow2';
    const boot = () => startMachine(dir, 16, ['-blockdev', disk, '-device', 'virtio-blk-pci,drive=d,bootindex=0']);
    const seen: ReturnType<typeof bootsOf> = [];
    {
      await using machine = await boot();
      await machine.saw(/boot 00000001\n/, bootMs);
      machine.type(guestKeys.reboot);
      await machine.saw(/boot 00000002\n/, bootMs);
      seen.push(...bootsOf(machine.serial()));
      // Disposed by SIGKILL: what it printed is on the disk.
    }
    {
      await using machine = await boot();
      await machine.saw(/boot 00000003\n/, bootMs);
      machine.type(guestKeys.off);
      expect(await machine.ended).toBe(0);
      seen.push(...bootsOf(machine.serial()));
    }
    await using machine = await boot();
    await machine.saw(/boot 00000004\n/, bootMs);
    await machine.qmp('system_powerdown');
    expect(await machine.ended).toBe(0);
    seen.push(...bootsOf(machine.serial()));
    expect(seen.map(({ count }) => count)).toEqual([1, 2, 3, 4]);
    expect(new Set(seen.map(({ mark }) => mark)).size).toBe(1);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}, 2 * bootMs);
