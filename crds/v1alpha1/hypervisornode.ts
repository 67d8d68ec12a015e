import { z } from 'zod';
import { conditions, type Kind, objectMeta } from './meta.ts';

/** What the administrator wants of one node. */
const nodeSpec = z.strictObject({
  schedulable: z.boolean().default(true).describe('Whether new VMs may be placed here. VMs that are here stay.'),
}).describe("The administrator's intent.");

/** What is true of one node; written by the operator alone. */
const nodeStatus = z.object({
  observedGeneration: z.int32().describe('The generation of the spec that this status is about; -1 before the operator has seen the node.'),
  agentId: z.string().max(64).describe('Identity of the agent that holds this node. Another agent under the same name is refused.').optional(),
  versions: z.object({
    agent: z.string().max(64).describe('Version of the agent.'),
    protocol: z.int32().describe('Version of the protocol that it speaks with the operator.'),
    qemu: z.string().max(64).describe('Version of QEMU.'),
    kernel: z.string().max(128).describe('Version of the kernel.'),
  }).describe('Versions on the node.').optional(),
  os: z.string().max(128).describe('Operating system.').optional(),
  architecture: z.enum(['amd64', 'arm64']).describe('Architecture of the processor.').optional(),
  accelerators: z.array(z.enum(['kvm', 'hvf', 'tcg'])).max(4).describe('What can execute guest code here, best first; kvm and hvf only when a probe guest ran.').optional(),
  features: z.array(z.string().max(64).describe('One feature.')).max(64).describe('What VMs may ask of the node: arch:ARCHITECTURE, uefi:ARCHITECTURE, secureboot:ARCHITECTURE, tpm, vsock.').optional(),
  networkMode: z.enum(['user', 'ovn']).describe('How guests are connected.').optional(),
  capacity: z.object({
    cpu: z.int32().describe('Processors.'),
    memory: z.string().max(24).describe('Memory.'),
    storage: z.string().max(24).describe('Size of the file system that holds the VMs.'),
  }).describe('What the node has.').optional(),
  allocated: z.object({
    cpu: z.int32().describe('Virtual CPUs of the VMs that are placed here.'),
    memory: z.string().max(24).describe('Memory of the VMs that are placed here, with their overhead.'),
  }).describe('What is taken.').optional(),
  vmCount: z.int32().describe('VMs that are placed here.').optional(),
  orphans: z.array(z.object({
    uid: z.string().max(64).describe('The uid of the VM.'),
    namespace: z.string().max(63).describe('The namespace it had.'),
    name: z.string().max(253).describe('The name it had.'),
    state: z.string().max(32).describe('Its state as the agent reports it: running, paused, stopped ...; unknown while it says nothing of it.'),
  })).max(512).describe('VMs that are here although the cluster does not know them, or has bound them to another node. They keep running. The annotation strato.dev/adopt-orphan with the uid gives one to the VirtualMachine of its name; strato.dev/discard-orphan ends one for good, with all disks but those with deletionPolicy Retain.').optional(),
  orphanDisks: z.array(z.object({
    uid: z.string().max(64).describe('The uid under which the node keeps it.'),
    namespace: z.string().max(253).describe('The namespace that it is for, as the node says.'),
    vm: z.string().max(253).describe('The VM that it was of, as the node says.'),
    disk: z.string().max(20).describe('Its name in that VM.'),
    size: z.string().max(24).describe('Size that a guest sees.'),
  })).max(384).describe('Disks that have outlived their VMs and that no VirtualDisk stands for: their namespace was deleted, or the cluster was restored. They are kept. The annotation strato.dev/adopt-orphan with the uid makes a VirtualDisk of one, if its namespace is still the same; strato.dev/discard-orphan deletes its data.').optional(),
  conditions: conditions().optional(),
}).describe('What is true. Written by the operator alone.');

/** What is true of one node. */
export type NodeStatus = z.output<typeof nodeStatus>;

/** A HypervisorNode as it is read from the API server. */
export const hypervisorNode = z.object({ metadata: objectMeta, spec: nodeSpec.prefault({}), status: nodeStatus.default({ observedGeneration: -1 }) });
/** A HypervisorNode as it is read from the API server. */
export type HypervisorNode = z.output<typeof hypervisorNode>;

/** The CRD's facts. */
export const hypervisorNodeKind = {
  kind: 'HypervisorNode', plural: 'hypervisornodes', singular: 'hypervisornode', shortNames: ['hvn'], scope: 'Cluster',
  description: 'A machine whose agent runs virtual machines. Created by the operator when an agent first authenticates.', spec: nodeSpec, status: nodeStatus,
  columns: [
    { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status', description: 'Whether VMs can run here.' },
    { name: 'Schedulable', type: 'string', jsonPath: '.spec.schedulable', description: 'Whether new VMs may be placed here.' },
    { name: 'VMs', type: 'integer', jsonPath: '.status.vmCount', description: 'VMs that are placed here.' },
    { name: 'CPU', type: 'integer', jsonPath: '.status.capacity.cpu', description: 'Processors.' },
    { name: 'Memory', type: 'string', jsonPath: '.status.capacity.memory', description: 'Memory.' },
    { name: 'Accelerator', type: 'string', jsonPath: '.status.accelerators[0]', description: 'What executes guest code.' },
    { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since creation.' },
    { name: 'Qemu', type: 'string', jsonPath: '.status.versions.qemu', description: 'Version of QEMU.', wide: true },
    { name: 'Message', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].message', description: 'What is wrong.', wide: true },
  ],
} satisfies Kind;
