import type { DesiredForward } from '#crds/wire/desired.ts';

/** How a NIC is connected, as data for the hypervisor. A port of the node is bound by QEMU itself in user mode. */
export type NicBackend = {
  kind: 'user';
  forwards: readonly { protocol: 'TCP' | 'UDP'; address: string; hostPort: number; port: number }[];
};

/** One interface of one VM, as it is wanted. */
export type Port = { uid: string; name: string; mac: string; forwards: readonly DesiredForward[] };

/** What a driver of this kind can do; the planner reads it. `trouble` tells why nothing can be attached now; what is attached stays. */
export type NetworkCapabilities = { mode: 'user' | 'ovn'; forwards: { address: string; minPort: number; maxPort: number }; trouble?: { reason: string; message: string } };

/**
 * Connects VMs. Every verb is safe to do twice.
 */
export type Network = {
  capabilities: () => NetworkCapabilities;
  /**
   * Makes a port ready and returns what QEMU needs. Faults: ForwardNotAllowed (outside of the agent's range, names the
   * range), ForwardInUse (another VM or another process holds the port; names it), and that of `trouble`. An interface that already holds its
   * forwards gets the same answer again. Call it before a start, not for a machine that runs: that is `adopt`.
   */
  attach: (port: Port, signal: AbortSignal) => Promise<NicBackend>;
  /**
   * Records what a machine that already runs has bound, without asking anybody: its own QEMU holds the ports. For
   * adoption after a restart of the agent; call it for every running VM before the first `attach`.
   */
  adopt: (port: Port) => NicBackend;
  /** Gives back everything that the VM holds, or one of its interfaces. */
  detach: (uid: string, signal: AbortSignal, name?: string) => Promise<void>;
};
