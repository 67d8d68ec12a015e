/** A range of IP addresses. IPv4 is held as IPv4-mapped IPv6, so that one form covers every spelling. */
export type Network = { base: bigint; bits: number };

/** What is known of one address: fit for a fetch, or what it is; `always` when no setting may allow it. */
export type Judgement = { is: 'fit' } | { is: 'refused'; what: string; always: boolean };

const mapped = 0xffff_0000_0000n;

/** The number of an IP address in text form (of IPv6 also with a zone); undefined when it is none. Source: RFC 4291, 2.2. */
export const parseAddress = (text: string): bigint | undefined => {
  const plain = text.replace(/%.*$/, '');
  if (!plain.includes(':')) {
    const four = parseV4(plain);
    return four === undefined ? undefined : mapped + four;
  }
  // A dotted quad at the end stands for the last two groups.
  const quad = /^(.*:)([^:]*\..*)$/.exec(plain);
  const tail = quad ? parseV4(quad[2] ?? '') : undefined;
  if (quad && tail === undefined) return undefined;
  const hex = tail === undefined ? plain : `${quad?.[1] ?? ''}${(tail >> 16n).toString(16)}:${(tail & 0xffffn).toString(16)}`;
  const halves = hex.split('::');
  const [left = [], right = []] = halves.map((half) => (half === '' ? [] : half.split(':')));
  const missing = 8 - left.length - right.length;
  if (halves.length > 2 || (halves.length === 2 ? missing < 1 : missing !== 0)) return undefined;
  const groups = [...left, ...Array.from({ length: missing }, () => '0'), ...right];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  return groups.reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n);
};

const parseV4 = (text: string): bigint | undefined => {
  const parts = text.split('.');
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) < 256)) return undefined;
  return parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n);
};

/** A network as `10.0.0.0/8`, `fd00::/8` or a single address; undefined when it is none, or has bits behind its prefix. */
export const parseNetwork = (text: string): Network | undefined => {
  const [, address = '', length] = /^([^/]+)(?:\/([0-9]{1,3}))?$/.exec(text) ?? [];
  const base = parseAddress(address);
  const width = address.includes(':') ? 128 : 32;
  const bits = 128 - width + (length === undefined ? width : Number(length));
  if (base === undefined || address.includes('%') || bits > 128) return undefined;
  return base % 2n ** BigInt(128 - bits) === 0n ? { base, bits } : undefined;
};

const network = (text: string): Network => {
  const parsed = parseNetwork(text);
  if (!parsed) throw new Error(`not a network: ${text}`);
  return parsed;
};

const contains = ({ base, bits }: Network, address: bigint): boolean => {
  const behind = BigInt(128 - bits);
  return address >> behind === base >> behind;
};

type Special = { in: Network; what: string; always: boolean };
const special = (what: string, networks: readonly string[], always = false): Special[] => networks.map((text) => ({ in: network(text), what, always }));

// Sources: the IANA registries of special-purpose IPv4 and IPv6 addresses (RFC 6890 and what amended it); the
// documentation of the clouds for where their metadata services are. The first match counts.
const specials: readonly Special[] = [
  ...special('the metadata service of a cloud', ['169.254.169.254', '169.254.170.2', '100.100.100.200', '168.63.129.16', '192.0.0.192', 'fd00:ec2::254', 'fd20:ce::254'], true),
  ...special('an unspecified address', ['0.0.0.0/8', '::'], true),
  ...special('a multicast address', ['224.0.0.0/4', 'ff00::/8'], true),
  ...special('the broadcast address', ['255.255.255.255'], true),
  ...special('a loopback address', ['127.0.0.0/8', '::1']),
  ...special('a link-local address', ['169.254.0.0/16', 'fe80::/10']),
  ...special('a private address', ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7', 'fec0::/10', '64:ff9b:1::/48']),
  ...special('a reserved address', [
    '192.0.0.0/24', '192.0.2.0/24', '192.88.99.0/24', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24', '240.0.0.0/4',
    '2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20',
  ]),
];
const v4 = network('0.0.0.0/0');
const globalUnicast = network('2000::/3');
// A translator of the network makes IPv4 of it: RFC 6052.
const translated = network('64:ff9b::/96');

/**
 * Whether an image may be fetched from an address. Pure. What is not a public unicast address is refused unless it lies
 * in `allowed`; `own` are the addresses of the node itself, which count as private whatever they are.
 */
export const judgeAddress = (text: string, allowed: readonly Network[], own: readonly string[]): Judgement => {
  const parsed = parseAddress(text);
  if (parsed === undefined) return { is: 'refused', what: 'no IP address', always: true };
  const address = contains(translated, parsed) ? mapped + (parsed & 0xffff_ffffn) : parsed;
  const found = specials.find((each) => contains(each.in, address));
  if (found?.always) return { is: 'refused', what: found.what, always: true };
  if (allowed.some((each) => contains(each, address))) return { is: 'fit' };
  if (found) return { is: 'refused', what: found.what, always: false };
  if (own.some((each) => parseAddress(each) === address)) return { is: 'refused', what: 'an address of this node itself', always: false };
  return contains(v4, address) || contains(globalUnicast, address) ? { is: 'fit' } : { is: 'refused', what: 'a reserved address', always: false };
};
