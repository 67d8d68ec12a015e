import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from '#agent/hypervisor/qemu/probe.ts';

/** A PATH on which `qemu-img` converts no more than so many MiB a second, so that the middle of it can be met. Dispose it at the end. */
export const slowConversions = async (mibPerSecond: number): Promise<AsyncDisposable & { path: string }> => {
  const before = process.env['PATH'] ?? '';
  const real = await findProgram('qemu-img', before);
  const folder = await mkdtemp(join(tmpdir(), 'strato-slow-'));
  await writeFile(join(folder, 'qemu-img'), `#!/bin/sh\n[ "$1" = convert ] && shift && exec ${real} convert -r ${mibPerSecond}M "$@"\nexec ${real} "$@"\n`, { mode: 0o755 });
  // Also for the user that converts.
  await chmod(folder, 0o755);
  return { path: `${folder}:${before}`, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
};
