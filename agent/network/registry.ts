import type { Network, NetworkCapabilities } from './driver.ts';
import type { Guard } from './user/guard.ts';
import { makeUserNetwork } from './user/driver.ts';

/** The network modes that are built; the configuration refuses any other by name. */
export type NetworkMode = 'user';

/** Makes a driver. `forwards` is the agent's forward_address and forward_ports; `guard` keeps guests from the node. */
export type MakeNetwork = (options: { forwards: NetworkCapabilities['forwards']; guard: Pick<Guard, 'trouble'> }) => Network;

/** Every network driver, by its mode. */
export const networks = { user: makeUserNetwork } satisfies Record<NetworkMode, MakeNetwork>;
