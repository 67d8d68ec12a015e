// A QEMU that proves nothing: what runs is adopted and ended all the same, and nobody waits for it.
import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { quiet } from '#crds/kit/log.ts';
import { until } from '#hack/bed/until.ts';
import { openQemuBed, type QemuBed } from './bed.ts';
import { makeQemu } from './driver.ts';

const waitMs = 120_000;
const signal = () => AbortSignal.timeout(waitMs);

describe('a node whose QEMU', () => {
  let bed: QemuBed;
  let folder: string;
  let ending: AbortController;
  const path = process.env.PATH ?? '';
  beforeEach(async () => {
    bed = await openQemuBed();
    ending = new AbortController();
    folder = await mkdtemp(join(tmpdir(), 'strato-unready-'));
  });
  afterEach(async () => {
    process.env.PATH = path;
    ending.abort();
    await bed.close();
    await rm(folder, { recursive: true });
  });
  /** A driver for which `qemu-system-x86_64` is this script. */
  const withQemu = async (script: string) => {
    const file = join(folder, 'qemu-system-x86_64');
    await writeFile(file, `#!/bin/sh\n${script}\n`);
    await chmod(file, 0o755);
    process.env.PATH = `${folder}:${path}`;
    return makeQemu({ paths: bed.paths, bootId: 'boot-1', accelerate: false, log: quiet, onProved: () => {} }, ending.signal);
  };

  test('does not answer the probe: starts are refused at once, what runs is adopted and ended', async () => {
    const uid = randomUUID();
    const spec = await bed.spec(uid);
    await bed.hypervisor.start(spec, signal());
    await bed.hypervisor.resume(uid, signal());
    const next = await withQemu('exec sleep 1006');
    expect(next.capabilities()).toMatchObject({ accelerators: [], unready: { reason: 'Preparing' } });
    expect(await next.observe(uid, signal())).toMatchObject({ is: 'present', startId: spec.startId, guest: 'running' });
    // The probe would wait for longer than this test does.
    await expect(next.start(await bed.spec(randomUUID()), signal())).rejects.toMatchObject({ code: 'Preparing' });
    await next.kill(uid, signal());
    expect(await next.observe(uid, signal())).toMatchObject({ is: 'gone' });
  });

  test('runs no guest: that is told', async () => {
    const next = await withQemu('echo no such machine >&2; exit 1');
    await until('what was found', () => next.capabilities().unready?.reason === 'QemuUnusable', waitMs);
    await expect(next.start(await bed.spec(randomUUID()), signal())).rejects.toMatchObject({ code: 'QemuUnusable' });
  });
});
