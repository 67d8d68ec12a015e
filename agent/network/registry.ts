import type { Network, NetworkCapabilities } from './driver.ts';
import { makeUserNetwork } from './user/driver.ts';

/** The network modes that are built; the configuration refuses any other by name. */
export type NetworkMode = 'user';

/** Makes a driver. `forwards` is the agent's forward_address and forward_ports. */
export type MakeNetwork = (options: { forwards: NetworkCapabilities['forwards'] }) => Network;

/** Every network driver, by its mode. */
export const networks = { user: makeUserNetwork } satisfies Record<NetworkMode, MakeNetwork>;
