import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';
import { Fault } from '#crds/kit/fault.ts';
import { cached, cacheRoot, digestFiles } from '../cache/cache.ts';
import { runChild } from '../cache/child.ts';
import type { OnProgress } from '../cache/progress.ts';
import { tellingMaking } from '../cache/progress.ts';
import type { Deb } from './apt.ts';
import { parseKernelAbi, parseUris } from './apt.ts';

/**
 * The test guest: `disk` is a qcow2 that boots by BIOS on q35, `digest` is `sha256:` and the hex of its bytes;
 * `kernel` and `initrd` are the same guest for `-kernel`. All are absolute paths in the cache, never written to.
 */
export type Guest = { disk: string; digest: string; kernel: string; initrd: string };

/** The Debian packages that must be installed to build the guest (and, for its unit tests, to run its scripts). */
export const guestPackages: readonly string[] = [
  'busybox-static',
  'cpio',
  'dosfstools',
  'fdisk',
  'mtools',
  'qemu-utils',
  'syslinux',
  'syslinux-common',
];

// What goes into the guest; downloaded and unpacked, never installed. The kernel is added by its present ABI name.
const ingredients = ['busybox-static', 'dropbear-bin', 'libc6', 'libcrypt1', 'libgmp10', 'libtomcrypt1', 'libtommath1', 'zlib1g'];

const aptMs = 60_000;
const buildMs = 10 * 60_000;
const digestFile = z.string().regex(/^sha256:[0-9a-f]{64}$/);

/**
 * The guest's image, made when the cache lacks one of this recipe and these packages (about six seconds and 30 MB of
 * downloads). The same recipe and packages give the same bytes.
 * Faults: AptLists, GuestArchitecture, GuestBuild with the script's last lines; the signal's reason when aborted.
 */
export const ensureGuest = async (onProgress: OnProgress, signal?: AbortSignal, root = cacheRoot()): Promise<Guest> => {
  if (process.arch !== 'x64') {
    throw new Fault('GuestArchitecture', `the guest is built on amd64 machines only, this is ${process.arch}`, { retry: 'never' });
  }
  const what = 'guest image';
  const options = signal ? { signal } : {};
  const abi = parseKernelAbi(await askApt('apt-cache', ['depends', 'linux-image-cloud-amd64'], signal));
  const names = [`linux-image-${abi}`, ...ingredients];
  const debs = parseUris(await askApt('apt-get', ['download', '--print-uris', ...names], signal), names);
  const version = await versionOf(abi, debs);
  let made = false;
  const onWait = () => onProgress({ what, is: 'waiting', seconds: 0 });
  const dir = await cached({ name: 'guest', version, root, onWait, ...options }, async (into, aborted) => {
    made = true;
    await tellingMaking(what, onProgress, () => buildInto(into, abi, debs, aborted));
  });
  if (!made) onProgress({ what, is: 'cached', seconds: 0 });
  return {
    disk: join(dir, 'guest.qcow2'),
    digest: digestFile.parse(await readFile(join(dir, 'digest'), 'utf8')),
    kernel: join(dir, 'vmlinuz'),
    initrd: join(dir, 'initrd'),
  };
};

const versionOf = async (abi: string, debs: readonly Deb[]): Promise<string> => {
  const here = import.meta.dirname;
  const tree = await readdir(join(here, 'root'), { recursive: true, withFileTypes: true });
  const files = tree.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const recipe = await digestFiles([join(here, 'build.sh'), ...files]);
  return `${abi}-${digestOf([recipe, debs]).slice(0, 12)}`;
};

const buildInto = async (into: string, abi: string, debs: readonly Deb[], signal: AbortSignal): Promise<void> => {
  const pinned = debs.map((deb) => `${deb.package}=${deb.version}`);
  try {
    await runChild('bash', [join(import.meta.dirname, 'build.sh'), into, abi, ...pinned], {
      cwd: into,
      env: process.env,
      signal,
      timeoutMs: buildMs,
    });
  } catch (cause) {
    if (signal.aborted) throw cause;
    const hint = `needs the packages ${guestPackages.join(' ')}`;
    throw new Fault('GuestBuild', `hack/guest/build.sh failed; it ${hint}`, { cause });
  }
  await writeFile(join(into, 'digest'), await sha256(join(into, 'guest.qcow2')));
};

const askApt = async (command: string, args: readonly string[], signal?: AbortSignal): Promise<string> => {
  try {
    return await runChild(command, args, {
      cwd: '/',
      env: { ...process.env, LC_ALL: 'C' },
      timeoutMs: aptMs,
      ...(signal ? { signal } : {}),
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Fault('AptLists', `"${command} ${args[0]}" failed: is this a Debian, and was "apt-get update" run?`, { cause });
  }
};

const sha256 = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(z.instanceof(Uint8Array).parse(chunk));
  return `sha256:${hash.digest('hex')}`;
};
