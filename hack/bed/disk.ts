import { mkdir, mkdtemp, open, readFile, rm, stat, statfs, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { runTool } from '#agent/host/exec.ts';
import { until } from './until.ts';

/** A small ext4 of its own, on a loop device, whose ills a test can bring about. Needs root. Dispose it after all that uses it. */
export type BedDisk = AsyncDisposable & {
  /** Where it is mounted. */
  directory: string;
  /** Fills it, or takes away of what fills it: to the last block, or so that `leaveMiB` are left. */
  fill: (leaveMiB?: number) => Promise<void>;
  /** Takes away what fills it. */
  empty: () => Promise<void>;
  /** Whoever writes waits in the kernel (state D), until it is thawed. */
  freeze: (frozen: boolean) => Promise<void>;
  /** The file system has met an error of its disk and can not be written any more, whoever has files open. Nothing but `repair` mends it. */
  fail: () => Promise<void>;
  /** Every access fails with EIO, as when the disk was pulled out. Nothing but `repair` mends it. */
  pull: () => Promise<void>;
  /** Unmounts, checks and mounts it again; nobody may use it meanwhile. */
  repair: () => Promise<void>;
};

/** For a shell in a mount namespace that was just made: takes these disks out of it, of all suites. There they stay mounted when their suites unmount them. */
export const withoutBedDisks = `awk '$2 ~ /\\/strato-disk-/ { print $2 }' /proc/mounts | xargs -r -n 1 umount -l`;

const toolMs = 120_000;
const mebibyte = 1024 * 1024;

const run = async (file: string, args: readonly string[], good: readonly number[] = [0]): Promise<string> => {
  const { code, stdout, stderr } = await runTool(file, args, { signal: AbortSignal.timeout(toolMs) });
  if (code === null || !good.includes(code)) throw new Error(`${file} ${args.join(' ')} ended with ${code ?? 'a signal'}: ${stderr}`);
  return stdout.trim();
};

/** Makes one of `sizeMiB` and mounts it. */
export const makeBedDisk = async (sizeMiB: number): Promise<BedDisk> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-disk-'));
  const image = join(folder, 'image');
  const directory = join(folder, 'mount');
  const filler = join(directory, 'filler');
  await mkdir(directory);
  await run('truncate', ['-s', `${sizeMiB}M`, image]);
  await run('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
  const device = await run('losetup', ['--find', '--show', image]);
  const mount = () => run('mount', ['-o', 'errors=remount-ro', device, directory]);
  await mount();
  const isMounted = async () => (await readFile('/proc/self/mountinfo', 'utf8')).includes(` ${directory} `);
  const unmount = () => until('the disk to be free', () => run('umount', [directory]), toolMs);
  return {
    directory,
    fill: async (leaveMiB = 0) => {
      const { bsize, bavail } = await statfs(directory);
      const there = await stat(filler).then(({ size }) => size, () => 0);
      const wanted = there + bsize * bavail - (leaveMiB === 0 ? mebibyte : leaveMiB * mebibyte);
      if (wanted < there) await truncate(filler, wanted);
      else await run('fallocate', ['-l', String(wanted), filler]);
      if (leaveMiB > 0) return;
      const handle = await open(filler, 'a');
      try {
        for (const size of [64 * 1024, 4096]) for (let full = false; !full;) full = await handle.write(Buffer.alloc(size, 0xaa)).then(({ bytesWritten }) => bytesWritten < size, () => true);
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
    empty: async () => {
      await rm(filler, { force: true });
      await run('sync', ['-f', directory]);
    },
    freeze: async (frozen) => void (await run('fsfreeze', [frozen ? '--freeze' : '--unfreeze', directory])),
    fail: () => writeFile(`/sys/fs/ext4/${basename(device)}/trigger_fs_error`, 'x\n'),
    // EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32), with EXT4_GOING_FLAGS_NOLOGFLUSH.
    pull: async () => void (await run('perl', ['-e', 'my $how = pack("L", 2); open(my $d, "<", $ARGV[0]) or die; ioctl($d, 0x8004587d, $how) or die "$!"', directory])),
    repair: async () => {
      await unmount();
      // Whoever has just made a mount namespace has it mounted for another moment.
      await until('the disk to be free for a check', () => run('e2fsck', ['-fy', device], [0, 1]), toolMs);
      await mount();
    },
    [Symbol.asyncDispose]: async () => {
      await run('fsfreeze', ['--unfreeze', directory], [0, 1]).catch(() => '');
      if (await isMounted()) await unmount();
      await run('losetup', ['--detach', device]);
      await rm(folder, { recursive: true, force: true });
    },
  };
};
