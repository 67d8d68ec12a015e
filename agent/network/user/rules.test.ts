import { expect, test } from '@jest/globals';
import { guardRules, parseResolvers } from './rules.ts';

test('the resolvers of the node are those that resolv.conf names, and no more', () => {
  expect(parseResolvers('# nameserver 9.9.9.9\nsearch x\nnameserver 127.0.0.53\n nameserver fe80::1%eth0\nnameserver ::1 # local\nnameserver 127.0.0.53\nnameserver "}; drop\nnameserver 1.2.3\noptions a'))
    .toEqual(['127.0.0.53', 'fe80::1', '::1']);
  expect(parseResolvers(Array.from({ length: 20 }, (_, n) => `nameserver 10.0.0.${n}`).join('\n'))).toHaveLength(8);
});

test('the rules replace what is there in one step, let resolvers answer, and none when there is none', () => {
  const text = guardRules({ table: 't', ids: { min: 5, max: 9 }, resolvers: ['127.0.0.53', '::1'] });
  expect(text.split('\n').slice(0, 2)).toEqual(['add table inet t', 'delete table inet t']);
  expect(text).toContain('meta skuid 5-9 goto guest');
  expect(text).toContain('meta l4proto { tcp, udp } th dport 53 ip daddr { 127.0.0.53 } accept');
  expect(text).toContain('meta l4proto { tcp, udp } th dport 53 ip6 daddr { ::1 } accept');
  expect(guardRules({ table: 't', ids: { min: 5, max: 9 }, resolvers: [] })).not.toContain('dport 53');
});
