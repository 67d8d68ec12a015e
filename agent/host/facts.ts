import { readFile } from 'node:fs/promises';
import { cpus, release } from 'node:os';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { nodeFacts } from '#crds/wire/observed.ts';
import type { NodeIdentity } from '../nodefacts.ts';
import { platform } from './platform.ts';

const manifest = z.object({ version: nodeFacts.shape.agentVersion });
const architecture = z.enum({ x64: 'x64', arm64: 'arm64' }).transform((name) => (name === 'x64' ? 'amd64' : 'arm64'));

/** What a node is, read once: neither the kernel nor the memory of a node changes under its agent. Faults: HostUnreadable. */
export const readNodeIdentity = async (): Promise<NodeIdentity> => ({
  agentVersion: await readAgentVersion(),
  kernel: release().slice(0, 128),
  os: await platform.osName(),
  architecture: parseArchitecture(process.arch),
  bootId: await platform.bootId(),
  // The node's online CPUs. `availableParallelism` would tell those that the agent itself may use.
  cpus: cpus().length,
  memoryMiB: await platform.memoryMiB(),
});

const readAgentVersion = async (): Promise<string> => {
  const file = new URL('../../package.json', import.meta.url);
  try {
    return manifest.parse(JSON.parse(await readFile(file, 'utf8'))).version;
  } catch (cause) {
    throw new Fault('HostUnreadable', `the version of the agent can not be read: ${messageOf(cause)}`, { cause });
  }
};

/** The architecture in the words of the API, from Node's. Faults: ArchitectureUnsupported. */
export const parseArchitecture = (name: string): NodeIdentity['architecture'] => {
  const known = architecture.safeParse(name);
  if (!known.success) throw new Fault('ArchitectureUnsupported', `a node of architecture ${name} can not run machines; amd64 and arm64 can`, { retry: 'never' });
  return known.data;
};
