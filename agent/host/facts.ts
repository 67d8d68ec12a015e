import { readFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { nodeFacts } from '#crds/wire/observed.ts';
import type { NodeIdentity } from '../agent.ts';
import { readBootId } from './bootid.ts';

const manifest = z.object({ version: nodeFacts.shape.agentVersion });
const osRelease = z.object({ PRETTY_NAME: z.string().min(1).optional(), NAME: z.string().min(1).optional() });
const architecture = z.enum({ x64: 'x64', arm64: 'arm64' }).transform((name) => (name === 'x64' ? 'amd64' : 'arm64'));

// With hostPID the first one is the node's own, while the second is that of the agent's image.
const releaseFiles = ['/proc/1/root/etc/os-release', '/etc/os-release', '/usr/lib/os-release'];

/** What a node is, read once: neither the kernel nor the memory of a node changes under its agent. Faults: HostUnreadable. */
export const readNodeIdentity = async (): Promise<NodeIdentity> => ({
  agentVersion: await readAgentVersion(),
  kernel: release().slice(0, 128),
  os: await readOsName(releaseFiles),
  architecture: parseArchitecture(process.arch),
  bootId: await readBootId(),
  // The node's online CPUs. `availableParallelism` would tell those that the agent itself may use.
  cpus: cpus().length,
  // Not `os.totalmem()`: what a container sees there is the runtime's business.
  memoryMiB: parseMemoryMiB(await readFile('/proc/meminfo', 'utf8')),
});

const readAgentVersion = async (): Promise<string> => {
  const file = new URL('../../package.json', import.meta.url);
  try {
    return manifest.parse(JSON.parse(await readFile(file, 'utf8'))).version;
  } catch (cause) {
    throw new Fault('HostUnreadable', `the version of the agent can not be read: ${messageOf(cause)}`, { cause });
  }
};

const readOsName = async (files: readonly string[]): Promise<string> => {
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => undefined);
    if (text !== undefined) return parseOsName(text);
  }
  return 'Linux';
};

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

/** The architecture in the words of the API, from Node's. Faults: ArchitectureUnsupported. */
export const parseArchitecture = (name: string): NodeIdentity['architecture'] => {
  const known = architecture.safeParse(name);
  if (!known.success) throw new Fault('ArchitectureUnsupported', `a node of architecture ${name} can not run machines; amd64 and arm64 can`, { retry: 'never' });
  return known.data;
};
