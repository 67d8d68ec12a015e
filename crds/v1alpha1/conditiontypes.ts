/** Every type that a condition may have: the kinds that carry it, and what True means. docs/conditions.md is made from it. */
export const conditionTypes = {
  Ready: [
    ['VirtualMachine', 'VirtualMachineImage', 'VirtualDisk', 'HypervisorNode'],
    'VM: the declared power state is reached and the spec is accepted (a VM that is Stopped as declared is Ready). Image: VMs can start from it. Disk: it is on its node, and the VM that it is for can have it back. Node: VMs can run there.',
  ],
  Scheduled: [['VirtualMachine'], 'The VM has a node, in status.nodeName.'],
  DisksReady: [['VirtualMachine'], 'All disks are there.'],
  NetworkReady: [['VirtualMachine'], 'All interfaces are connected.'],
  AgentConnected: [['VirtualMachine', 'HypervisorNode'], 'The agent of the node is heard. False says nothing about the guests: they run on.'],
  RestartRequired: [['VirtualMachine'], 'The running machine lacks edits of the spec, listed in status.pendingChanges. The VM stays Ready.'],
  IOError: [['VirtualMachine'], 'A disk of the node is full or failed, and QEMU holds the guest where it was: nothing is lost. It goes on by itself. Absent otherwise.'],
  GuestReady: [['VirtualMachine'], 'The guest passes probes.ready. Absent without a probe. It is not part of Ready.'],
  CpusOffline: [['VirtualMachine'], 'The guest does not use all the CPUs that it was given. Absent otherwise, and without a guest agent.'],
  AgentRefused: [['HypervisorNode'], 'Another agent claims the name of the node, and is refused. Absent otherwise.'],
  InUse: [['VirtualMachineImage'], 'The image is deleted, but VMs use it; the message names them. It goes with the last of them. Absent otherwise.'],
  CopiesRefused: [['VirtualMachineImage'], 'Nodes report other bytes under the image than those that it is; the message names them. Their copies are not used. Absent otherwise.'],
  DeletionProtected: [['VirtualMachine'], 'The VM is deleted and still protected, so nothing is torn down. Absent otherwise.'],
  Reconciling: [['VirtualMachine', 'VirtualMachineImage', 'VirtualDisk'], 'Work is under way (kstatus). Absent otherwise; never beside Stalled.'],
  Stalled: [['VirtualMachine', 'VirtualMachineImage', 'VirtualDisk'], 'Nothing goes on before somebody acts (kstatus). Absent otherwise; never beside Reconciling.'],
  AcceleratorAvailable: [['HypervisorNode'], 'A probe guest ran under hardware acceleration.'],
  StorageReady: [['HypervisorNode'], 'The agent can write to its disk, so it keeps what it is told. False costs no running guest anything, but new intents are refused.'],
  OrphansPresent: [['HypervisorNode'], 'VMs run there, or disks are kept there, that the cluster does not know; see status.orphans and status.orphanDisks.'],
} as const satisfies Record<string, readonly [kinds: readonly string[], meaning: string]>;

/** A type that a condition may have. */
export type ConditionType = keyof typeof conditionTypes;
