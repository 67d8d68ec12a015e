import type { Log } from '../../vm/hands.ts';
import type { Paths } from '../../host/paths.ts';
import type { Cgroups } from './cgroup.ts';
import type { Verdict } from './probe.ts';
import type { Watcher } from './watch.ts';

/** Everything that the work on one machine of this driver reaches for. */
export type House = {
  paths: Paths;
  log: Log;
  /** Identity of this boot of the node. */
  bootId: string;
  qemu: string;
  cgroups: Cgroups;
  watcher: Watcher;
  /** Resolves once probe guests have told what the node can do. Only starts wait for it. */
  verdict: () => Promise<Verdict>;
};
