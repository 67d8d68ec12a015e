// N09: the pool of a node fills while a guest writes. The guest is held, says so, goes on by itself, and has lost nothing.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { roomMiB } from '#agent/vm/halted.ts';
import { resyncMs } from '#agent/vm/pass.ts';
import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { makeBedDisk } from '../bed/disk.ts';
import { verdict, vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { openScene } from './scene.ts';

const stepMs = 120_000;
const diskMiB = 1_200;
const pieces = 300;
const pieceBytes = 256 * 1024;

// A piece at a time, each of its own text; then what lies on the disk is read back and summed up.
const script = `#!/bin/sh
d=/dev/disk/by-id/virtio-data
i=0
while [ $i -lt ${pieces} ]; do
  yes "piece $i" | head -c ${pieceBytes} | dd of=$d bs=${pieceBytes} seek=$i conv=notrunc,fsync 2>/dev/null || echo "FAILED $i" >/dev/ttyS0
  echo "WROTE $i" >/dev/ttyS0
  i=$((i + 1))
done
echo 3 >/proc/sys/vm/drop_caches
echo "SUM $(head -c ${pieces * pieceBytes} $d | sha256sum | cut -d' ' -f1)" >/dev/ttyS0
`;

const expected = (): string => {
  const hash = createHash('sha256');
  for (let piece = 0; piece < pieces; piece += 1) {
    const line = `piece ${piece}\n`;
    hash.update(line.repeat(Math.ceil(pieceBytes / line.length)).slice(0, pieceBytes));
  }
  return hash.digest('hex');
};

describe('the pool of a node', () => {
  const lab = opened(async () => {
    await using made = new AsyncDisposableStack();
    const disk = made.use(await makeBedDisk(diskMiB));
    const { all } = made.use(await openScene({ stateDir: join(disk.directory, 'state') }));
    const stack = made.move();
    return { disk, all, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  });

  const status = async (uid: string): Promise<string> => {
    const signal = AbortSignal.timeout(60_000);
    using qmp = await openQmp(`${lab.all.node.paths.sockets(uid)}/tools.sock`, signal);
    return (await qmp.execute('query-status', z.object({ status: z.string() }), signal)).status;
  };
  const power = (powerState: string) => lab.all.me.patchVm('writer', { spec: { powerState } });

  test('N09: fills while a guest writes: held with IOError, goes on by itself when there is room, never against its user, and nothing is lost', async () => {
    const { all, disk } = lab;
    await all.me.apply(vmManifest('writer', {
      memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'linux' } }, { name: 'data', blank: {}, size: '400Mi' }], cloudInit: { userData: script },
    }, 'default', 'linux'));
    const { metadata: { uid } } = await all.me.vmIs('writer', 'Ready=True Running', stepMs);
    const wrote = async () => Math.max(-1, ...[...(await all.node.serial(uid)).matchAll(/WROTE (\d+)/g)].map(([, piece]) => Number(piece)));
    const writesOn = async () => {
      const before = await wrote();
      await until('the guest to write on', async () => (await wrote()) > before + 2, stepMs);
    };
    const [qemu] = await all.node.qemus();
    await until('the guest to write', async () => (await wrote()) > 2, 600_000);

    await disk.fill(20);
    const halted = await all.me.vmIs('writer', 'IOError=True NoSpace', stepMs);
    expect([halted.status.phase, verdict(halted), verdict(halted, 'DisksReady')]).toEqual(['Paused', 'Ready=False NoSpace', 'DisksReady=True DisksReady']);
    expect(conditionOf(halted.status.conditions, 'IOError')?.message).toMatch(/^disk data: .*no space left/);
    expect(await status(uid)).toBe('io-error');
    // Another agent finds it so and takes care of it.
    await all.node.end('SIGKILL');
    await all.node.start();
    await all.node.joined();
    await all.me.vmIs('writer', 'IOError=True NoSpace', stepMs);
    await disk.empty();
    const back = await all.me.vmIs('writer', 'Ready=True Running', stepMs);
    expect([conditionOf(back.status.conditions, 'IOError'), await status(uid)]).toEqual([undefined, 'running']);
    await writesOn();

    // Enough for the agent to keep what its user wants, too little for the guest.
    await disk.fill();
    await all.me.vmIs('writer', 'IOError=True NoSpace', stepMs);
    await disk.fill(roomMiB - 8);
    await all.me.nodeIs('node-1', 'StorageReady=True StorageReady', stepMs);
    await power('Paused');
    const paused = await all.me.vmIs('writer', 'Ready=True Paused', stepMs);
    expect(verdict(paused, 'IOError')).toBe('IOError=True NoSpace');
    await disk.empty();
    const since = performance.now();
    await until('longer than the agent looks at anything again', () => performance.now() - since > resyncMs + 5_000, stepMs);
    expect(await status(uid)).toBe('io-error');
    await power('Running');
    await all.me.vmIs('writer', 'Ready=True Running', stepMs);
    expect(await wrote()).toBeLessThan(pieces - 1);
    await until('the sum of what it wrote', async () => (await all.node.serial(uid)).includes('SUM '), 600_000);
    const text = await all.node.serial(uid);
    expect([/SUM ([0-9a-f]{64})/.exec(text)?.[1], text.includes('FAILED')]).toEqual([expected(), false]);
    expect((await all.node.qemus()).map(({ pid }) => pid)).toEqual([qemu?.pid]);
  }, 1_800_000);
});
