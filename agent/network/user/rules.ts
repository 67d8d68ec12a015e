import { isIPv4, isIPv6 } from 'node:net';

/** Unix ids of guests, both ends included, and the resolvers of the node that they may ask all the same. */
export type GuardFacts = { table: string; ids: { min: number; max: number }; resolvers: readonly string[] };

const mostResolvers = 8;
// Loopback, link-local and the metadata services of clouds. Sources: RFC 6890, RFC 3927, RFC 4291; the documentation of the clouds.
const v4 = ['127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/24', '100.100.100.200', '168.63.129.16', '192.0.0.192'];
const v6 = ['::1', 'fe80::/10', 'ff02::/16', 'fd00:ec2::254', 'fd20:ce::254'];

/** The name servers in the text of resolv.conf(5), which QEMU hands the questions of its guests to. Pure. */
export const parseResolvers = (text: string): string[] =>
  [...new Set(text.split('\n').flatMap((line) => {
    const [, address = ''] = /^\s*nameserver\s+([0-9a-fA-F.:]+)/.exec(line) ?? [];
    return isIPv4(address) || isIPv6(address) ? [address] : [];
  }))].slice(0, mostResolvers);

/**
 * The rules that keep guests in user mode from the node itself, as one text for `nft -f` that replaces what is there in one
 * step. Pure. QEMU opens the connections of its guest, so its Unix id tells them. Replies of a forward pass: somebody else
 * opened that connection. What is sent to any address of the node leaves by `lo`; a second look after address translation
 * finds what a service of the cluster leads back to the node. Source: nft(8).
 */
export const guardRules = ({ table, ids, resolvers }: GuardFacts): string => {
  const set = (addresses: readonly string[]): string => `{ ${addresses.join(', ')} }`;
  const [four, six] = [resolvers.filter((each) => isIPv4(each)), resolvers.filter((each) => !isIPv4(each))];
  const asks = [
    ...(four.length > 0 ? [`meta l4proto { tcp, udp } th dport 53 ip daddr ${set(four)} accept`] : []),
    ...(six.length > 0 ? [`meta l4proto { tcp, udp } th dport 53 ip6 daddr ${set(six)} accept`] : []),
  ];
  const passes = ['ct state established accept', ...asks];
  const chain = (name: string, lines: readonly string[]): string[] => [`  chain ${name} {`, ...lines.map((line) => `    ${line}`), '  }'];
  return [
    `add table inet ${table}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    ...chain('refuse', ['meta l4proto tcp reject with tcp reset', 'drop']),
    ...chain('guest', [...passes, `ip daddr ${set(v4)} goto refuse`, `ip6 daddr ${set(v6)} goto refuse`, 'oifname "lo" goto refuse']),
    ...chain('translated', [...passes, 'drop']),
    ...chain('output', ['type filter hook output priority 10; policy accept;', `meta skuid ${ids.min}-${ids.max} goto guest`]),
    ...chain('postrouting', ['type filter hook postrouting priority 10; policy accept;', `meta skuid ${ids.min}-${ids.max} oifname "lo" goto translated`]),
    '}',
    '',
  ].join('\n');
};
