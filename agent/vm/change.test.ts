import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { DesiredVm, Hardware } from '#crds/wire/desired.ts';
import { someVm } from './bed.ts';
import { changesOf, hardwareOf, withChange } from './change.ts';

const nic = (name: string, hostPort = 2222): DesiredVm['interfaces'][number] =>
  ({ name, mac: '52:54:00:00:00:01', user: { forwards: [{ name: 'ssh', hostPort, port: 22, protocol: 'TCP' }] } });
const hardware = (over: Partial<DesiredVm> = {}): Hardware => hardwareOf(someVm({ cpus: 1, maxCpus: 4, memoryMiB: 256, maxMemoryMiB: 512, interfaces: [nic('eth0')], ...over }));

describe('an edit', () => {
  test.each<[string, Partial<DesiredVm>, object[]]>([
    ['of nothing', { generation: 9 }, []],
    ['of cores up to max is live', { cpus: 4 }, [{ path: 'cpu.cores', current: '1', desired: '4', live: { is: 'cpus', cpus: 4 } }]],
    ['of cores above max waits', { cpus: 8 }, [{ path: 'cpu.cores', current: '1', desired: '8' }]],
    ['of max waits', { maxCpus: 8 }, [{ path: 'cpu.max', current: '4', desired: '8' }]],
    ['of memory up to max is live', { memoryMiB: 512 }, [{ path: 'memory.size', current: '256Mi', desired: '512Mi', live: { is: 'memory', memoryMiB: 512 } }]],
    ['of memory below what the machine booted with waits', { memoryMiB: 128 }, [{ path: 'memory.size', current: '256Mi', desired: '128Mi' }]],
    ['that adds a card is live, and one that removes one comes first', { interfaces: [nic('lan', 3333)] }, [
      { path: 'interfaces[eth0]', current: 'present', desired: 'absent', live: { is: 'unplugNic', name: 'eth0' } },
      { path: 'interfaces[lan]', current: 'absent', desired: 'present', live: { is: 'plugNic', name: 'lan' } },
    ]],
    ['of forwards is live', { interfaces: [nic('eth0', 4444)] }, [
      { path: 'interfaces[eth0].user.forwards', current: 'ssh=TCP/2222:22', desired: 'ssh=TCP/4444:22', live: { is: 'forwards', name: 'eth0' } },
    ]],
  ])('%s', (_rule, edit, changes) => {
    expect(changesOf(hardware(), hardware(edit), 256)).toEqual(changes);
  });

  test('of fewer cores waits: a CPU is never taken away', () => {
    expect(changesOf(hardware({ cpus: 4 }), hardware({ cpus: 2 }), 256)).toEqual([{ path: 'cpu.cores', current: '4', desired: '2' }]);
  });

  test('of plugged memory asks it back, down to what the machine booted with', () => {
    expect(changesOf(hardware({ memoryMiB: 512 }), hardware({ memoryMiB: 256 }), 256)).toMatchObject([{ live: { is: 'memory', memoryMiB: 256 } }]);
  });
});

const someHardware = fc.record({
  cpus: fc.integer({ min: 1, max: 6 }), maxCpus: fc.option(fc.integer({ min: 1, max: 6 }), { nil: undefined }),
  memoryMiB: fc.integer({ min: 16, max: 64 }), maxMemoryMiB: fc.option(fc.integer({ min: 16, max: 64 }), { nil: undefined }),
  nics: fc.uniqueArray(fc.record({ name: fc.constantFrom('a', 'b', 'c'), port: fc.integer({ min: 2000, max: 2002 }) }), { selector: ({ name }) => name, maxLength: 3 }),
}).map(({ cpus, maxCpus, memoryMiB, maxMemoryMiB, nics }) => hardware({
  cpus, ...(maxCpus === undefined ? {} : { maxCpus }), memoryMiB, ...(maxMemoryMiB === undefined ? {} : { maxMemoryMiB }), interfaces: nics.map(({ name, port }) => nic(name, port)),
}));

test('after its live changes a run differs only in what waits for a restart', () => {
  fc.assert(fc.property(someHardware, someHardware, (from, to) => {
    const boot = from.memoryMiB;
    const after = changesOf(from, to, boot).reduce((has, { live }) => (live ? withChange(has, to, live) : has), from);
    expect(changesOf(after, to, boot).filter(({ live }) => live)).toEqual([]);
    expect(changesOf(after, to, boot).map(({ path }) => path)).toEqual(changesOf(from, to, boot).filter(({ live }) => !live).map(({ path }) => path));
  }));
});
