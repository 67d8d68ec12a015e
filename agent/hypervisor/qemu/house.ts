import type { Log } from '#crds/kit/log.ts';
import type { Paths } from '../../host/paths.ts';
import type { Unready } from '../driver.ts';
import type { Cgroups } from './cgroup.ts';
import type { UefiFirmware } from './firmware.ts';
import type { Verdict } from './probe.ts';
import type { Watcher } from './watch.ts';

/** Everything that the work on one machine of this driver reaches for. */
export type House = {
  paths: Paths;
  log: Log;
  /** Identity of this boot of the node. */
  bootId: string;
  /** Its UEFI firmware, and the emulator of TPMs. */
  firmware: UefiFirmware;
  hasTpm: boolean;
  hasVsock: boolean;
  cgroups: Cgroups;
  watcher: Watcher;
  /** What probe guests have told of the node, or why they have not. Only starts need it, and none waits for it. */
  proved: () => { is: 'proved'; verdict: Verdict } | { is: 'unready'; why: Unready };
};
