import { expect, test } from '@jest/globals';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultPortBase, layout, planHome, planPorts } from './layout.ts';

test('ports lie side by side from the base', () => {
  expect(Object.values(planPorts(undefined)).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6].map((offset) => defaultPortBase + offset));
  expect(planPorts('20000').apiserver).toBe(20003);
});

test.each(['80', 'x', '65536', '-1', '1e4', ' 20000'])('STRATO_PORT_BASE=%s is refused by name', (base) => {
  expect(() => planPorts(base)).toThrow('STRATO_PORT_BASE');
});

test('the data lie in the clone, or where STRATO_HOME says', () => {
  expect(planHome('/clone', undefined)).toBe('/clone/.strato');
  expect(planHome('/clone', '/data/.strato/')).toBe('/data/.strato');
});

test.each(['/', '/data', 'here/.strato', '/data/.strato/..'])('STRATO_HOME=%s is refused: --purge would remove it', (home) => {
  expect(() => planHome('/clone', home)).toThrow('STRATO_HOME');
});

test('sockets of two clones are apart, and short wherever a clone lies', () => {
  const deep = layout(`/${'deep/'.repeat(40)}clone`).agent.sockets;
  expect(deep).not.toBe(layout('/clone').agent.sockets);
  // UID/tools.sock below it has 47 more; the end is at 107.
  expect(deep.length).toBeLessThan(60);
});

test('the example and the bootstrap script have the same ports', async () => {
  const root = join(import.meta.dirname, '..', '..');
  expect(await readFile(join(root, 'examples', 'first-vm.yaml'), 'utf8')).toContain(`http://127.0.0.1:${planPorts(undefined).images}/guest.qcow2`);
  expect(await readFile(join(root, 'hack', 'lib', 'bootstrap.sh'), 'utf8')).toContain(`STRATO_PORT_BASE:-${defaultPortBase}`);
});
