import { z } from 'zod';
import { toMiB } from '#crds/kit/quantity.ts';
import { cloudInit } from './cloudinit.ts';
import { disks } from './disks.ts';
import { conditions, type Kind, label, listMap, objectMeta, ruled, size, transition } from './meta.ts';
import { probes } from './probes.ts';
import { architecture, cpuModel, devices, firmware } from './machine.ts';

/** Memory is plugged in blocks of 2 MiB. */
const plugged = ruled(
  z.strictObject({
    size: size('16Mi', '8Ti').describe('Memory of the guest: whole Mi, Gi or Ti. Raised at once up to max, given back as far as the guest does it; below what the machine started with, or above max, it waits for a restart.'),
    max: size('16Mi', '8Ti').describe('Room for memory that can be plugged while the guest runs; the node reserves it. Counts as size when it is less. Changing it waits for a restart.').optional(),
  }),
  {
    rule: "!has(self.max) || (quantity(self.size).asInteger() % 2097152 == 0 && quantity(self.max).asInteger() % 2097152 == 0)",
    message: 'with max, size and max must be whole multiples of 2Mi: memory is plugged in blocks of 2Mi',
  },
  ({ size: now, max }) => max === undefined || (toMiB(now) % 2 === 0 && toMiB(max) % 2 === 0),
);

const forward = z.strictObject({
  name: label(20).describe('Name of the forward, unique in this interface.'),
  hostPort: z.int32().min(1).max(65535).describe("Port on the node. It must lie in the agent's forward_ports (1024 and up by default) and be used by no other VM of the node."),
  port: z.int32().min(1).max(65535).describe('Port in the guest.'),
  protocol: z.enum(['TCP', 'UDP']).describe('TCP when unset.').optional(),
}).describe("One port of the node that leads into the guest. It is bound to the agent's forward_address (127.0.0.1 by default).");

const networkInterface = z.strictObject({
  name: label(15).describe('Name of the interface, unique in this VM. The MAC address is derived from it.'),
  user: z.strictObject({
    forwards: listMap(forward, 'name', { max: 32 }).describe('Ports of the node that lead into the guest.').optional(),
  }).describe("User-mode network: the guest reaches out by the node's address, and is reached by forwards only."),
}).describe('One network card.');

/** What the user wants of one virtual machine. */
export const vmSpec = transition(z.strictObject({
  powerState: z.enum(['Running', 'Stopped', 'Paused']).default('Running')
    .describe('Whether the machine shall run. Applied at once. restartPolicy says what happens after the guest ended by itself; Stopped and then Running starts it in any case.'),
  restartPolicy: z.enum(['Always', 'OnFailure', 'Never']).default('Always')
    .describe('Whether a guest that ended by itself is started again, after 10 s and then twice as long each time up to 5 min; after 10 min of running the delay begins anew. OnFailure: not after it powered itself off. A crash of QEMU, a panic of its kernel, the end of its node and a kill for memory are failures. Applied at once.'),
  restartToken: z.string().min(1).max(63).regex(/^[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?$/)
    .describe('Any text; another one than before restarts the guest once, as `stop` says. The one that was honoured last is in status.restartTokenObserved.').optional(),
  cpu: z.strictObject({
    cores: z.int32().min(1).max(128).describe('Number of virtual CPUs. Raised at once up to max; fewer, or more than max, wait for a restart.'),
    max: z.int32().min(1).max(128).describe('Room for CPUs that can be plugged while the guest runs; the node reserves it. Counts as cores when it is less. Changing it waits for a restart.').optional(),
    model: cpuModel.describe("QEMU CPU model: host (the node's own, under KVM), max (all that the node can show), or a named one such as EPYC. A VM goes only to nodes that have all of it. Host under KVM and max under software emulation when unset. Changing it waits for a restart.").optional(),
  }).describe('Processors.'),
  memory: plugged.describe('Memory.'),
  architecture: architecture.describe("Architecture of the guest; that of the first disk's image when unset, else amd64. One that is not the node's own runs by software emulation. Immutable.").optional(),
  firmware: firmware.prefault({}),
  devices: devices.prefault({}),
  disks,
  interfaces: listMap(networkInterface, 'name', { max: 7 }).describe('Network cards. Added, removed and their forwards changed at once.').optional(),
  cloudInit: cloudInit.optional(),
  probes: probes.optional(),
  stop: z.strictObject({
    mode: z.enum(['Graceful', 'Force']).default('Graceful').describe('Graceful presses the ACPI power button and forces the machine off after the grace period; Force switches it off at once.'),
    gracePeriodSeconds: z.int32().min(0).max(86400).default(90).describe('How long a graceful stop may take.'),
  }).prefault({}).describe('How the machine is stopped.'),
  deletionProtection: z.boolean().describe('While true the API server refuses to delete this VM.').optional(),
}), {
  rule: 'has(self.architecture) == has(oldSelf.architecture) && (!has(self.architecture) || self.architecture == oldSelf.architecture)',
  message: 'architecture can not be changed; create another VM',
}).describe('What the user wants. No controller ever writes here.');

/**
 * Where a VM is in its life. Which of them is Ready, and why not, is decided in one place (operator/vm/status.ts).
 *
 *   Pending -> Preparing -> Starting -> Running <-> Paused
 *                 ^                        |
 *                 +------ Stopped <- Stopping, or the guest powered itself off
 *   from anywhere: Failed (it needs a person), Unknown (nobody can be asked), Terminating
 */
const vmPhase = z.enum(['Pending', 'Preparing', 'Starting', 'Running', 'Paused', 'Stopping', 'Stopped', 'Failed', 'Unknown', 'Terminating']);

/** Why a guest's last run ended. */
export const exitReason = z.enum(['GuestShutdown', 'GuestReset', 'GuestPanicked', 'QemuCrashed', 'OutOfMemory', 'NodeRebooted', 'Stopped', 'Forced']);

/** What is true of one virtual machine; written by the operator alone. */
const vmStatus = z.object({
  observedGeneration: z.int32().describe('The generation of the spec that this status is about; -1 before the operator has seen the VM.'),
  appliedGeneration: z.int32().describe('The generation of the spec that the running machine has; edits that wait for a restart keep it behind.').optional(),
  phase: vmPhase.describe('Where the VM is in its life.').optional(),
  nodeName: z.string().max(253).describe('The HypervisorNode that holds this VM.').optional(),
  machineUid: z.string().max(36).regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/).describe('The uid under which the node holds the machine, when it is not that of this object: the machine was adopted from an earlier object of this name.').optional(),
  epoch: z.int32().describe('Counts the placements of this VM. An agent refuses commands of an older one.').optional(),
  resolved: z.object({
    uuid: z.string().max(36).describe('SMBIOS UUID of the machine; the same for a VM re-created under this name.'),
    machine: z.string().max(64).describe('Versioned QEMU machine type.').optional(),
    cpuModel: z.string().max(64).describe('QEMU CPU model.').optional(),
    architecture: architecture.describe('Architecture of the guest.').optional(),
    accelerator: z.enum(['kvm', 'hvf', 'tcg']).describe('What executes guest code; tcg is software emulation.').optional(),
    acceleratorReason: z.string().max(256).describe('Why it is software emulation.').optional(),
    cpus: z.int32().describe('Virtual CPUs of the machine.').optional(),
    memory: z.string().max(16).describe('Memory of the machine.').optional(),
    reserved: z.object({
      cpus: z.int32().describe('Virtual CPUs.'),
      memory: z.string().max(16).describe('Memory of the guest.'),
    }).describe('What the node keeps for this VM: cpu and memory with their max, as they were when its node had room for them last.').optional(),
    images: z.array(z.object({
      disk: z.string().max(20).describe('Name of the disk.').optional(),
      name: z.string().max(253).describe('Name of the VirtualMachineImage.'),
      uid: z.string().max(64).describe('Its uid: the disk goes on when the object is deleted, or another takes its name.').optional(),
      digest: z.string().max(80).describe('Digest of its content, once the first import has fixed that.').optional(),
    })).max(8).describe('What each disk started from.').optional(),
  }).describe('Derived values.').optional(),
  interfaces: z.array(z.object({
    name: z.string().max(15).describe('Name of the interface.'),
    mac: z.string().max(17).describe('MAC address; the same for a VM re-created under this name.'),
    addresses: z.array(z.string().max(45).describe('IP address.')).max(16).describe('IP addresses that the guest says it has on this card. In user mode nobody but the guest can use them.').optional(),
    forwards: z.array(z.object({
      name: z.string().max(20).describe('Name of the forward.'),
      address: z.string().max(45).describe('Address on the node.'),
      hostPort: z.int32().describe('Port on the node.'),
      port: z.int32().describe('Port in the guest.'),
      protocol: z.enum(['TCP', 'UDP']).describe('Transport protocol.'),
    })).max(32).describe('Open ways into the guest.'),
  })).max(7).describe('Network cards.').optional(),
  disks: z.array(z.object({
    name: z.string().max(20).describe('Name of the disk.'),
    size: z.string().max(16).describe('Size the guest sees.').optional(),
    format: z.string().max(16).describe('Format on the node.').optional(),
    state: z.enum(['Ready', 'Missing', 'Empty', 'Unclaimed']).describe('Whether the file is there. Empty: a CD drive without a medium. Unclaimed: the node has it and the spec does not, without an edit that took it away (a restored cluster); it is kept. Put it into spec.disks again to use it.'),
  })).max(24).describe('Disks, also those that an edit has taken away until they are gone.').optional(),
  lastExit: z.object({
    reason: exitReason.describe('What ended the run.'),
    code: z.int32().describe('Exit code of QEMU; 128 and the number when a signal ended it.').optional(),
    signal: z.string().max(16).describe('The signal that ended QEMU.').optional(),
    time: z.string().max(40).describe('When it was noticed (RFC 3339).'),
  }).describe("How the guest's last run ended.").optional(),
  pendingChanges: z.array(z.object({
    path: z.string().max(128).describe('The field of the spec.'),
    current: z.string().max(256).describe('What the machine has.'),
    desired: z.string().max(256).describe('What the spec says.'),
  })).max(64).describe('Edits that the running machine does not have yet. RestartRequired tells why.').optional(),
  guest: z.object({
    agentVersion: z.string().max(64).describe('Version of the QEMU guest agent.'),
    os: z.string().max(128).describe('Operating system.').optional(),
    hostname: z.string().max(253).describe('Host name.').optional(),
  }).describe('What the guest says of itself through its agent.').optional(),
  timings: z.object({
    accepted: z.string().max(40).describe('When the VM was created (RFC 3339).'),
    scheduled: z.string().max(40).describe('When it was given a node.'),
    prepared: z.string().max(40).describe('When disks and network of its last run were ready.').optional(),
    running: z.string().max(40).describe('When the guest of that run began to run.').optional(),
    guestReady: z.string().max(40).describe('When that guest first passed probes.ready.').optional(),
  }).describe('When the VM came how far.').optional(),
  restartCount: z.int32().describe('How often restartPolicy has started the guest again.').optional(),
  restartTokenObserved: z.string().max(63).describe('The restartToken that was honoured last.').optional(),
  conditions: conditions().optional(),
}).describe('What is true. Written by the operator alone.');

/** What the user wants of one virtual machine, defaults filled in. */
export type VmSpec = z.output<typeof vmSpec>;
/** What is true of one virtual machine. */
export type VmStatus = z.output<typeof vmStatus>;
/** Where a VM is in its life. */
export type VmPhase = z.output<typeof vmPhase>;

/** A VirtualMachine as it is read from the API server. */
export const virtualMachine = z.object({ metadata: objectMeta.required({ namespace: true }), spec: vmSpec, status: vmStatus.default({ observedGeneration: -1 }) });
/** A VirtualMachine as it is read from the API server. */
export type VirtualMachine = z.output<typeof virtualMachine>;

/** The CRD's facts. */
export const virtualMachineKind = {
  kind: 'VirtualMachine', plural: 'virtualmachines', singular: 'virtualmachine', shortNames: ['vm', 'svm'], scope: 'Namespaced',
  description: 'A virtual machine.', spec: vmSpec, status: vmStatus,
  columns: [
    { name: 'Status', type: 'string', jsonPath: '.status.phase', description: 'Where the VM is in its life.' },
    { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status', description: 'Whether the declared state is reached.' },
    { name: 'Node', type: 'string', jsonPath: '.status.nodeName', description: 'The node that holds the VM.' },
    { name: 'IP', type: 'string', jsonPath: '.status.interfaces[0].addresses[0]', description: 'First address of the first card.' },
    { name: 'CPU', type: 'integer', jsonPath: '.spec.cpu.cores', description: 'Virtual CPUs.' },
    { name: 'Memory', type: 'string', jsonPath: '.spec.memory.size', description: 'Memory.' },
    { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since creation.' },
    { name: 'Image', type: 'string', jsonPath: '.spec.disks[0].image.name', description: 'Image of the first disk.', wide: true },
    { name: 'Forward', type: 'integer', jsonPath: '.status.interfaces[0].forwards[0].hostPort', description: 'First forwarded port of the node.', wide: true },
    { name: 'Restart-Required', type: 'string', jsonPath: '.status.conditions[?(@.type=="RestartRequired")].status', description: 'Whether edits wait for a restart.', wide: true },
    { name: 'Message', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].message', description: 'What the VM is waiting for, or what is wrong.', wide: true },
  ],
} satisfies Kind;
