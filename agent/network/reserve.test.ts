import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Port } from './driver.ts';
import { release, reserve, type Table } from './user/reserve.ts';

const range = { address: '127.0.0.1', minPort: 100, maxPort: 105 };
const ports = fc.record({
  uid: fc.constantFrom('vm-a', 'vm-b', 'vm-c'),
  name: fc.constantFrom('eth0', 'eth1'),
  hostPorts: fc.uniqueArray(fc.integer({ min: 99, max: 106 }), { maxLength: 3 }),
  protocol: fc.constantFrom<'TCP' | 'UDP'>('TCP', 'UDP'),
});

describe('reservations', () => {
  test('whatever is asked for in whatever order: no port has two holders, and a refusal changes nothing', () => {
    fc.assert(fc.property(fc.array(fc.oneof(ports, fc.constantFrom('vm-a', 'vm-b', 'vm-c')), { maxLength: 30 }), (asks) => {
      let table: Table = new Map();
      const model = new Map<string, string[]>();
      for (const ask of asks) {
        if (typeof ask === 'string') {
          table = release(table, ({ uid }) => uid === ask);
          for (const key of model.keys()) if (key.startsWith(`${ask} `)) model.delete(key);
          continue;
        }
        const port: Port = { uid: ask.uid, name: ask.name, mac: '', forwards: ask.hostPorts.map((hostPort, at) => ({ name: `f${at}`, hostPort, port: 22, protocol: ask.protocol })) };
        const slots = ask.hostPorts.map((hostPort) => `${ask.protocol}/${hostPort}`);
        const key = `${ask.uid} ${ask.name}`;
        const taken = new Set([...model].filter(([other]) => other !== key).flatMap(([, held]) => held));
        const allowed = ask.hostPorts.every((hostPort) => hostPort >= 100 && hostPort <= 105) && slots.every((slot) => !taken.has(slot));
        try {
          table = reserve(table, port, range).table;
          model.set(key, slots);
          expect(allowed).toBe(true);
        } catch (thrown) {
          expect(allowed).toBe(false);
          expect(thrown).toMatchObject({ code: expect.stringMatching(/^Forward(NotAllowed|InUse)$/) });
        }
        expect([...table.keys()].toSorted()).toEqual([...model.values()].flat().toSorted());
      }
    }));
  });
});
