import { expect, test } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bootSectorImage } from './bootsector.ts';
import { startMachine } from './machine.ts';

test('prints its text on the first serial port, then halts', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'strato-boot-'));
  try {
    await writeFile(join(dir, 'disk.raw'), bootSectorImage('STRATO sector up'));
    const disk = 'driver=raw,node-name=d,read-only=on,file.driver=file,file.filename=disk.raw';
    await using machine = await startMachine(dir, 16, ['-blockdev', disk, '-device', 'virtio-blk-pci,drive=d,bootindex=0']);
    await machine.saw(/^STRATO sector up\n/m, 120_000);
    expect(machine.serial().match(/STRATO/g)).toHaveLength(1);
    expect(await machine.qmp('query-status')).toMatchObject({ status: 'running' });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
