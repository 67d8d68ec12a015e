import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { orAborted } from '#crds/kit/aborted.ts';
import { slots } from '#crds/kit/slots.ts';
import { judgeAddress, type Network, parseNetwork } from './addresses.ts';

/** The configuration key that allows more than public addresses. */
const allowedKey = 'image_allowed_networks';

/** Every address of a name. */
export type Resolve = (host: string, signal: AbortSignal) => Promise<readonly string[]>;

/** What a guard needs. `allowed` are networks beside the public ones; `own` gives the addresses of this node. */
export type GuardOptions = { allowed: readonly string[]; resolve?: Resolve; own?: () => readonly string[] };

/**
 * Gives the addresses that a request to this URL may go to, and to no others: the name is looked up once, here, so that a
 * second answer can't be another one. Faults: SourceRefused (for ever), DownloadFailed (the name can't be looked up).
 */
export type Guard = (url: URL, signal: AbortSignal) => Promise<readonly string[]>;

/** A guard in front of every request. */
export const makeGuard = ({ allowed, resolve = systemResolve, own = ownAddresses }: GuardOptions): Guard => {
  const networks = allowed.map((text): Network => {
    const network = parseNetwork(text);
    if (!network) throw new Fault('BadConfig', `${allowedKey}: ${JSON.stringify(text)} is no network`, { retry: 'never' });
    return network;
  });
  return async (url, signal) => {
    // WHATWG URLs turn every spelling of an IPv4 address (decimal, octal, hexadecimal, short, with a dot behind) into the dotted one.
    const host = url.hostname.replace(/^\[|\]$/g, '');
    const literal = isIP(host) !== 0;
    const addresses = literal ? [host] : await lookUp(url, host, resolve, signal);
    for (const address of addresses) {
      const judgement = judgeAddress(address, networks, own());
      if (judgement.is === 'refused') throw refusal(host, literal, judgement);
    }
    return addresses;
  };
};

// The message names the range, not the address that a name resolved to: that would show users the internal DNS.
const refusal = (host: string, literal: boolean, { what, always }: { what: string; always: boolean }): Fault => {
  const way = always ? 'no setting allows that' : `an administrator can allow its network by ${allowedKey} in the configuration of the agent`;
  return new Fault('SourceRefused', `${host} ${literal ? 'is' : 'resolves to'} ${what}, and nothing is fetched from there; ${way}`, { retry: 'never' });
};

const lookUp = async (url: URL, host: string, resolve: Resolve, signal: AbortSignal): Promise<readonly string[]> => {
  try {
    const addresses = await orAborted(resolve(host, signal), signal);
    if (addresses.length > 0) return addresses;
  } catch (cause) {
    signal.throwIfAborted();
    throw new Fault('DownloadFailed', `fetching ${shown(url)}: ${host} can not be looked up: ${messageOf(cause)}`, { cause });
  }
  throw new Fault('DownloadFailed', `fetching ${shown(url)}: ${host} has no address`);
};

// getaddrinfo holds one of Node's four threads until it answers, and files need them, too: two look-ups at a time, no more.
const turn = slots(2);
const systemResolve: Resolve = (host, signal) => turn(async () => (await lookup(host, { all: true })).map(({ address }) => address), signal);

const ownAddresses = (): string[] => Object.values(networkInterfaces()).flatMap((each) => each ?? []).map(({ address }) => address);

/** A URL that may be fetched as far as its form goes. Fault: SourceRefused, for ever. */
export const parseSource = (text: string): URL => {
  const url = URL.parse(text);
  const refused = (why: string): Fault => new Fault('SourceRefused', why, { retry: 'never' });
  if (!url) throw refused('the source is no URL; give one that begins with http:// or https://');
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw refused(`the source begins with ${url.protocol} and only http and https URLs are fetched`);
  if (url.username !== '' || url.password !== '') throw refused(`a URL with a user name or password is not fetched, as that of ${url.host}`);
  return url;
};

/** A URL for messages and logs: without its query, since that of a pre-signed URL is a secret. */
export const shown = (url: URL): string => `${url.origin}${url.pathname}`;
