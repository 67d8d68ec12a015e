import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { digestOf } from '#crds/kit/digest.ts';
import { Fault } from '#crds/kit/fault.ts';
import { cached, cacheRoot, digestFiles } from '../cache/cache.ts';
import { runChild } from '../cache/child.ts';
import type { OnProgress } from '../cache/progress.ts';
import { tellingMaking } from '../cache/progress.ts';
import type { Deb } from './apt.ts';
import type { Apt } from './debs.ts';
import { aptFor, downloadDebs, findDebs } from './debs.ts';
import type { Recipe } from './recipes.ts';
import { arm64, hardware, small } from './recipes.ts';

/**
 * A test guest: `disk` is a bootable qcow2, `digest` is `sha256:` and the hex of its bytes; `kernel` and `initrd` are the same
 * guest for `-kernel`. All are absolute paths in the cache, never written to.
 */
export type Guest = { disk: string; digest: string; kernel: string; initrd: string };

/** Gives a guest, made when the cache lacks one of this recipe and these packages. `root` is the cache's folder. */
export type EnsureGuest = (onProgress: OnProgress, signal?: AbortSignal, root?: string) => Promise<Guest>;

/** The Debian packages that must be installed to build a guest (and, for the unit tests, to run its scripts). */
const guestPackages: readonly string[] = [
  'binutils',
  'busybox-static',
  'cpio',
  'dosfstools',
  'fdisk',
  'lz4',
  'mtools',
  'qemu-utils',
  'syslinux',
  'syslinux-common',
];

const buildMs = 10 * 60_000;
const digestFile = z.string().regex(/^sha256:[0-9a-f]{64}$/);

/**
 * Making one takes about ten seconds and 40 MB of downloads. The same recipe and packages give the same bytes.
 * Faults: AptLists, GuestArchitecture, GuestBuild with the script's last lines; the signal's reason when aborted.
 */
const ensure =
  (recipe: Recipe): EnsureGuest =>
  async (onProgress, signal, root = cacheRoot()) => {
    if (process.arch !== 'x64') {
      throw new Fault('GuestArchitecture', `guests are built on amd64 machines only, this is ${process.arch}`, { retry: 'never' });
    }
    const { name, what } = recipe;
    const apt = await aptFor(recipe.architecture, root, signal);
    const { abi, debs } = await findDebs(apt, recipe.kernel, recipe.ingredients);
    const version = `${abi}-${digestOf([await digestOfRecipe(recipe), debs]).slice(0, 12)}`;
    let made = false;
    const onWait = () => onProgress({ what, is: 'waiting', seconds: 0 });
    const dir = await cached({ name, version, root, onWait, ...(signal ? { signal } : {}) }, async (into, aborted) => {
      made = true;
      await tellingMaking(what, onProgress, () => buildInto(into, recipe, abi, { ...apt, signal: aborted }, debs));
    });
    if (!made) onProgress({ what, is: 'cached', seconds: 0 });
    return {
      disk: join(dir, `${name}.qcow2`),
      digest: digestFile.parse(await readFile(join(dir, 'digest'), 'utf8')),
      kernel: join(dir, 'vmlinuz'),
      initrd: join(dir, 'initrd'),
    };
  };

/** The small guest: a disk that boots by BIOS, by UEFI and under Secure Boot (with 384 MiB of memory or more) on q35. */
export const ensureGuest = ensure(small);

/** The guest with Debian's full kernel (70 MB of downloads): SATA, the i6300esb watchdog, e1000e. BIOS and UEFI on q35. */
export const ensureHardwareGuest = ensure(hardware);

/** The guest for arm64, by UEFI on `virt`. Its packages come through lists of our own, so `apt-get update` runs for those at first. */
export const ensureArm64Guest = ensure(arm64);

const digestOfRecipe = async (recipe: Recipe): Promise<string> => {
  const here = import.meta.dirname;
  const tree = await readdir(join(here, 'root'), { recursive: true, withFileTypes: true });
  const files = tree.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return digestOf([recipe, await digestFiles([join(here, 'build.sh'), ...files])]);
};

const buildInto = async (into: string, recipe: Recipe, abi: string, apt: Required<Apt>, debs: readonly Deb[]): Promise<void> => {
  const { signal } = apt;
  const disk = join(into, `${recipe.name}.qcow2`);
  const downloaded = join(into, 'debs');
  await downloadDebs(apt, debs, downloaded);
  const groups = Object.entries(recipe.drivers).map(([group, drivers]) => `${group}=${drivers.join(',')}`);
  const script = join(import.meta.dirname, 'build.sh');
  try {
    await runChild('bash', [script, into, disk, downloaded, recipe.architecture, abi, ...groups], { cwd: into, env: process.env, signal, timeoutMs: buildMs });
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new Fault('GuestBuild', `hack/guest/build.sh failed; it needs the packages ${guestPackages.join(' ')}`, { cause });
  }
  await rm(downloaded, { recursive: true });
  await writeFile(join(into, 'digest'), await sha256(disk));
};

const sha256 = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(z.instanceof(Uint8Array).parse(chunk));
  return `sha256:${hash.digest('hex')}`;
};
