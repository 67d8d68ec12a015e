import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import { readBootId } from './bootid.ts';
import type { Holder, Platform } from './platform.ts';

const osRelease = z.object({ PRETTY_NAME: z.string().min(1).optional(), NAME: z.string().min(1).optional() });

// With hostPID the first one is the node's own, while the second is that of the agent's image.
const releaseFiles = ['/proc/1/root/etc/os-release', '/etc/os-release', '/usr/lib/os-release'];

/** Linux with util-linux. */
export const linux: Platform = {
  accelerator: 'kvm',
  sandbox: ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
  firmware: ['/etc/qemu/firmware', '/usr/share/qemu/firmware'],
  bootId: () => readBootId(),
  osName: async () => {
    for (const file of releaseFiles) {
      const text = await readFile(file, 'utf8').catch(() => undefined);
      if (text !== undefined) return parseOsName(text);
    }
    return 'Linux';
  },
  // Not `os.totalmem()`: what a container sees there is the runtime's business.
  memoryMiB: async () => parseMemoryMiB(await readFile('/proc/meminfo', 'utf8')),
  lockDescriptor: (fd, seconds) => `flock ${seconds === 0 ? '-n' : `-w ${seconds}`} -E 75 ${fd}`,
  asVm: 'as_vm() { exec setpriv "--reuid=$id" "--regid=$id" "$groups" --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@"; }',
  expendable: 'echo 500 > /proc/self/oom_score_adj',
  // fallocate makes no file when it keeps the size. Source: util-linux fallocate.c.
  reserve: (bytes, file) => `: >>${file}\nfallocate -n -l ${bytes} ${file} 2>/dev/null || :`,
  underLock: (file, waitMs, command) => ['flock', '-E', '75', ...(waitMs > 0 ? ['-w', String(waitMs / 1000)] : ['-n']), file, ...command],
  lockHolders: async (lock, fd, near) => {
    const found = await amongHolders(near, lock, fd);
    return found.length > 0 ? found : amongHolders((await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number), lock, fd);
  },
  // Source: proc(5), Tgid.
  processOf: async (thread) => Number(/^Tgid:\s*(\d+)$/m.exec(await readFile(`/proc/${thread}/status`, 'utf8'))?.[1] ?? thread),
};

const amongHolders = async (pids: readonly number[], lock: string, fd: number): Promise<Holder[]> => {
  const file = await identityOf(lock);
  const found: Holder[] = [];
  for (const pid of pids) {
    const held = `/proc/${pid}/fd/${fd}`;
    // Only what is called so is asked further: a file of somebody else may lie where no answer comes.
    if (basename(await readlink(held).catch(() => '')) !== basename(lock) || file === undefined || (await identityOf(held)) !== file) continue;
    // Not the command line: reading that of a process which the kernel holds (state D) may hang as well.
    const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
    found.push({ pid, isSupervisor: name === 'sh\n' });
  }
  return found;
};

/** What file a path leads to, behind whatever links: its device and inode. Undefined when there is none. */
const identityOf = (path: string): Promise<string | undefined> => stat(path, { bigint: true }).then(({ dev, ino }) => `${dev}:${ino}`, () => undefined);

/** The name of an operating system for people, at most 128 characters, from the text of os-release(5). */
export const parseOsName = (text: string): string => {
  const pairs = text.split('\n').flatMap((line): [string, string][] => {
    const [, key, value] = /^([A-Z][A-Z0-9_]*)=(.*)$/.exec(line.trim()) ?? [];
    return key === undefined || value === undefined ? [] : [[key, unquoted(value)]];
  });
  const { PRETTY_NAME, NAME } = osRelease.safeParse(Object.fromEntries(pairs)).data ?? {};
  return (PRETTY_NAME ?? NAME ?? 'Linux').slice(0, 128);
};

// Quotes and backslashes are those of a shell; nothing is expanded.
const unquoted = (value: string): string => value.replace(/^(["'])(.*)\1$/, '$2').replace(/\\(["'$`\\])/g, '$1');

/** The memory of the node in MiB, from the text of /proc/meminfo, proc_meminfo(5). Faults: HostUnreadable. */
export const parseMemoryMiB = (text: string): number => {
  const kib = z.coerce.number().int().min(1024).safeParse(/^MemTotal:\s+(\d+) kB$/m.exec(text)?.[1]);
  if (!kib.success) throw new Fault('HostUnreadable', 'the size of the memory of the node can not be read from /proc/meminfo');
  return Math.floor(kib.data / 1024);
};
