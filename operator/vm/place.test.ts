import { describe, expect, test } from '@jest/globals';
import { vmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import { boardOf, skillsOf } from './needs.ts';
import { type Candidate, place } from './place.ts';

const spec = vmSpec.parse({ cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'guest' } }] });
const candidate = (over: Partial<Candidate> = {}): Candidate => ({
  name: 'node-1', connected: true, schedulable: true, accelerator: 'tcg', skills: skillsOf({ architecture: 'amd64' }), capacity: { cpus: 2, memoryMiB: 8192 }, taken: { cpus: 0, memoryMiB: 0 },
  ports: { min: 1024, max: 65535, used: new Map() }, ...over,
});

describe('placement', () => {
  const need = { board: boardOf(spec, undefined), extraMiB: 32, cpus: 1, memoryMiB: 256, ports: [{ protocol: 'TCP' as const, hostPort: 2222 }] };
  test.each([
    ['no node', [], 'NoNodeReady', 'no node has joined'],
    ['a silent node', [candidate({ connected: false })], 'NoNodeReady', 'not connected'],
    ['a closed node', [candidate({ schedulable: false })], 'NoNodeReady', 'not schedulable'],
    ['too little memory', [candidate({ capacity: { cpus: 2, memoryMiB: 300 } })], 'NoNodeFits', '300Mi is free'],
    ['too few processors', [candidate({ taken: { cpus: 8, memoryMiB: 0 } })], 'NoNodeFits', '0 are free'],
    ['a port that another VM has', [candidate({ ports: { min: 1024, max: 65535, used: new Map([['TCP/2222', 'default/b']]) } })], 'ForwardConflict', 'default/b'],
    ['a port outside of the range', [candidate({ ports: { min: 3000, max: 4000, used: new Map() } })], 'ForwardNotAllowed', '3000-4000'],
  ])('with %s is refused with the reason and the gap', (_, candidates, reason, words) => {
    const placement = place(need, candidates);
    expect(placement).toMatchObject({ is: 'nowhere', reason, message: expect.stringContaining(words) });
  });

  test.each([
    ['a node that lacks an eighth of the memory, not one that lacks half of the processors', { capacity: { cpus: 2, memoryMiB: 430 } }, { taken: { cpus: 7, memoryMiB: 0 } }, 'node-1: needs 497Mi of memory with overhead and 430Mi is free'],
    ['a node that lacks half of the processors, not one that lacks most of the memory', { capacity: { cpus: 2, memoryMiB: 64 } }, { taken: { cpus: 7, memoryMiB: 0 } }, 'node-2: needs 2 vCPUs and 1 are free'],
    ['what is short most on a node that is short of both', { capacity: { cpus: 2, memoryMiB: 460 }, taken: { cpus: 8, memoryMiB: 0 } }, { taken: { cpus: 7, memoryMiB: 0 } }, 'node-2: needs 2 vCPUs and 1 are free'],
    ['everything that is short there', { capacity: { cpus: 2, memoryMiB: 460 }, taken: { cpus: 8, memoryMiB: 0 } }, { capacity: { cpus: 2, memoryMiB: 0 }, taken: { cpus: 8, memoryMiB: 0 } }, 'node-1: needs 497Mi of memory with overhead and 460Mi is free; needs 2 vCPUs and 0 are free'],
    ['a node where only a port is taken before any that is full', { capacity: { cpus: 2, memoryMiB: 490 } }, { ports: { min: 1024, max: 65535, used: new Map([['TCP/2222', 'default/b']]) } }, 'node-2: host port 2222/TCP is used by VM default/b'],
  ])('that fits nowhere names %s', (_, first, second, words) => {
    expect(place({ ...need, cpus: 2 }, [candidate(first), candidate({ name: 'node-2', ...second })])).toEqual({ is: 'nowhere', reason: 'NoNodeFits', message: `closest of 2 ready nodes is ${words}` });
  });

  const copy = { refuses: { reason: 'DigestMismatch' as const, message: 'its copy of image guest is refused' } };
  test('goes to no node whose copy of the image is refused while another one fits; without one it says so', () => {
    const full = candidate({ name: 'node-2', capacity: { cpus: 2, memoryMiB: 300 } });
    expect(place(need, [candidate(copy), candidate({ name: 'node-2', taken: { cpus: 0, memoryMiB: 7000 } })])).toEqual({ is: 'node', name: 'node-2' });
    expect(place(need, [candidate(copy)])).toEqual({ is: 'nowhere', reason: 'DigestMismatch', message: 'the only ready node is node-1: its copy of image guest is refused' });
    expect(place(need, [full, candidate(copy)])).toEqual({ is: 'nowhere', reason: 'NoNodeFits', message: 'closest of 2 ready nodes is node-1: its copy of image guest is refused' });
  });

  test('takes the node with the most memory left', () => {
    expect(place(need, [candidate({ taken: { cpus: 0, memoryMiB: 4096 } }), candidate({ name: 'node-2' })])).toEqual({ is: 'node', name: 'node-2' });
  });
});
