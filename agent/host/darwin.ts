import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { runTool } from './exec.ts';
import type { Holder, Platform } from './platform.ts';

const askMs = 10_000;

// macOS has flock(2) and no tool for it; its perl does, and interoperates with whatever else uses flock(2). Both texts hold no single quote.
const lockOpen = 'open(my $l, "<&=", shift) or die "$!"; my $end = time + shift; until (flock($l, 6)) { exit 75 if time >= $end; select(undef, undef, undef, 0.02) }';
const lockFile = 'open(my $l, ">>", shift) or die "$!"; my $end = time + shift; until (flock($l, 6)) { exit 75 if time >= $end; select(undef, undef, undef, 0.02) } system { $ARGV[0] } @ARGV; exit($? == 0 ? 0 : 1)';
// Group first: who is not root any more can not change it. Setting `$)` to two numbers clears the supplementary groups.
const becomeVm = 'use POSIX (); my $id = shift; $) = "$id $id"; POSIX::setgid($id); POSIX::setuid($id); die "still root" if $< == 0 or $> == 0; exec { $ARGV[0] } @ARGV; die "$!"';

/**
 * macOS: Hypervisor.framework, user networking. There is neither a sandbox of QEMU's own, nor cgroups, nor a way to reserve room in a file. Not
 * run anywhere yet: its texts are tested on Linux, where perl and lsof are the same; see docs/platforms.md.
 */
export const darwin: Platform = {
  accelerator: 'hvf',
  sandbox: [],
  firmware: ['/opt/homebrew/share/qemu/firmware', '/usr/local/share/qemu/firmware'],
  // A new one for each boot. Source: XNU, bsd/kern/kern_sysctl.c.
  bootId: async () => z.guid().transform((id) => id.toLowerCase()).parse(await ask('sysctl', ['-n', 'kern.bootsessionuuid'])),
  osName: async () => `${await ask('sw_vers', ['-productName'])} ${await ask('sw_vers', ['-productVersion'])}`.slice(0, 128),
  memoryMiB: async () => parseMemorySize(await ask('sysctl', ['-n', 'hw.memsize'])),
  lockDescriptor: (fd, seconds) => `perl -e '${lockOpen}' ${fd} ${seconds}`,
  asVm: `as_vm() { exec perl -e '${becomeVm}' "$id" "$@"; }`,
  expendable: ':',
  reserve: () => ':',
  underLock: (file, waitMs, command) => ['perl', '-e', lockFile, file, String(waitMs / 1000), ...command],
  lockHolders: async (lock, fd) => {
    const { stdout } = await runTool('lsof', ['-n', '-P', '-w', '-F', 'pcf', '--', lock], { signal: AbortSignal.timeout(askMs) });
    return parseHolders(stdout, fd);
  },
  // QEMU tells its process in place of a thread here. Source: QEMU util/oslib-posix.c, qemu_get_thread_id.
  processOf: async (thread) => thread,
};

const ask = async (tool: string, args: readonly string[]): Promise<string> => {
  try {
    return (await runTool(tool, args, { signal: AbortSignal.timeout(askMs) })).stdout.trim();
  } catch (cause) {
    throw new Fault('HostUnreadable', `${tool} ${args.join(' ')}: ${messageOf(cause)}`, { cause });
  }
};

/** The memory of the node in MiB, from what `sysctl -n hw.memsize` says. Faults: HostUnreadable. */
export const parseMemorySize = (text: string): number => {
  const bytes = z.coerce.number().int().min(1024 * 1024).safeParse(text);
  if (!bytes.success) throw new Fault('HostUnreadable', 'the size of the memory of the node can not be read from hw.memsize');
  return Math.floor(bytes.data / (1024 * 1024));
};

/** Who has a file open as descriptor `fd`, from what `lsof -F pcf` says of it: a line a field, `p` begins a process. Pure. Source: lsof(8). */
export const parseHolders = (text: string, fd: number): Holder[] => {
  const found: Holder[] = [];
  let pid = 0;
  let command = '';
  for (const line of text.split('\n')) {
    const value = line.slice(1);
    if (line.startsWith('p')) pid = Number(value);
    else if (line.startsWith('c')) command = value;
    else if (line.startsWith('f') && Number(value) === fd) found.push({ pid, isSupervisor: command === 'sh' });
  }
  return found;
};
