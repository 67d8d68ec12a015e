import { darwin } from './darwin.ts';
import { linux } from './linux.ts';

/** A process that has a lock open. The supervisor of a machine is told apart from its QEMU. */
export type Holder = { pid: number; isSupervisor: boolean };

/**
 * What differs between the platforms that an agent runs on; each is one file. Texts for a shell are pure, so that they are tested where they
 * can not be run.
 */
export type Platform = {
  /** What accelerates guests here; claimed only when a probe guest ran. */
  accelerator: 'kvm' | 'hvf';
  /** Arguments that confine QEMU itself. */
  sandbox: readonly string[];
  /** Folders of firmware descriptors. */
  firmware: readonly string[];
  /** Identity of this boot of the node. Faults: HostUnreadable. */
  bootId: () => Promise<string>;
  /** The name of the operating system for people. */
  osName: () => Promise<string>;
  /** Faults: HostUnreadable. */
  memoryMiB: () => Promise<number>;
  /** Shell: locks the open file of a descriptor, waiting at most `seconds`; its status is 75 when another process has it. */
  lockDescriptor: (fd: number, seconds: number) => string;
  /** Shell: a function `as_vm COMMAND...` that becomes the command as the user `$id` without any right; `$groups` is an option of it. */
  asVm: string;
  /** Shell: the kernel ends this process and what it starts before it ends the agent. */
  expendable: string;
  /** Shell: takes room for `bytes` of a file that is not longer than that, where the file system can. */
  reserve: (bytes: number, file: string) => string;
  /** The command that runs another one which has a lock meanwhile: its status is 0 when that one's was, 75 when another process has the lock. */
  underLock: (file: string, waitMs: number, command: readonly [string, ...string[]]) => [command: string, ...args: string[]];
  /** The processes that have `lock` open as descriptor `fd`: those among `near`, else those of the whole node. */
  lockHolders: (lock: string, fd: number, near: readonly number[]) => Promise<Holder[]>;
  /** The process of a thread that QEMU told. */
  processOf: (thread: number) => Promise<number>;
};

/** The platforms that are built, by Node's name. */
export const platforms = { linux, darwin } satisfies Partial<Record<NodeJS.Platform, Platform>>;

/** The platform of this process. */
export const platform: Platform = process.platform === 'darwin' ? platforms.darwin : platforms.linux;
