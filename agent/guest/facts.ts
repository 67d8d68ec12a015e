import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { GuestInfo } from '#crds/wire/observed.ts';
import { printable } from './pattern.ts';
import type { GuestAgent } from './qga.ts';

const info = z.object({ version: z.string() });
const osInfo = z.object({ 'pretty-name': z.string().optional(), name: z.string().optional(), version: z.string().optional() });
const hostName = z.object({ 'host-name': z.string() });
const interfaces = z.array(z.object({
  'hardware-address': z.string().optional(),
  'ip-addresses': z.array(z.object({ 'ip-address': z.string(), 'ip-address-type': z.enum(['ipv4', 'ipv6']) })).optional(),
}));
const vcpus = z.array(z.object({ online: z.boolean() }));

const mostAddresses = 16;
const addressForm = /^[0-9a-f.:]{2,45}$/;

/**
 * What a guest says of itself. A command that its agent does not know or is not allowed leaves its part out. Nothing in it ticks:
 * equal guests give equal facts.
 */
export const askGuest = async (agent: GuestAgent): Promise<GuestInfo> => {
  const { version } = await agent.execute('guest-info', info);
  const os = await unlessRefused(agent.execute('guest-get-osinfo', osInfo));
  const name = await unlessRefused(agent.execute('guest-get-host-name', hostName));
  const cards = await unlessRefused(agent.execute('guest-network-get-interfaces', interfaces));
  const cpus = await unlessRefused(agent.execute('guest-get-vcpus', vcpus));
  const osName = os && (os['pretty-name'] ?? [os.name, os.version].filter((each) => each !== undefined).join(' '));
  return {
    agentVersion: printable(version, 64),
    ...(osName ? { os: printable(osName, 128) } : {}),
    ...(name ? { hostname: printable(name['host-name'], 253) } : {}),
    addresses: addressesOf(cards ?? []),
    ...(cpus ? { cpusOnline: cpus.filter(({ online }) => online).length } : {}),
  };
};

/** Addresses by card, link-local ones left out; cards and addresses in a fixed order. Pure. */
export const addressesOf = (cards: z.output<typeof interfaces>): GuestInfo['addresses'] =>
  cards.flatMap((card) => {
    const mac = card['hardware-address']?.toLowerCase();
    if (mac === undefined || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac)) return [];
    const found = (card['ip-addresses'] ?? []).map((each) => each['ip-address'].toLowerCase()).filter((each) => addressForm.test(each) && !each.startsWith('fe80:'));
    return found.length === 0 ? [] : [{ mac, addresses: [...new Set(found)].sort().slice(0, mostAddresses) }];
  }).sort((a, b) => (a.mac < b.mac ? -1 : 1)).slice(0, 32);

const unlessRefused = async <T>(asked: Promise<T>): Promise<T | undefined> => {
  try {
    return await asked;
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.code === 'GuestAgentFailed') return undefined;
    throw thrown;
  }
};
