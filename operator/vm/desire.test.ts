import { expect, test } from '@jest/globals';
import { cloudInitBytes } from '#crds/v1alpha1/cloudinit.ts';
import { virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { maxFrameBytes } from '#crds/wire/messages.ts';
import { makeFleet } from '../fleet/fleet.ts';
import { desireOf } from './desire.ts';

const count = <T>(most: number, make: (at: string) => T): T[] => Array.from({ length: most }, (_, at) => make(String(at)));
// One byte in UTF-8, six in JSON: nothing grows more.
const worst = '\u0001';

test('the largest VM that the schema admits fits into a frame', () => {
  const keys = count(64, () => worst.repeat(cloudInitBytes / 64));
  const machine = (userData: string) => virtualMachine.safeParse({
    metadata: { name: 'n'.repeat(253), namespace: 'n'.repeat(63), uid: '11111111-2222-4333-8444-555555555555', resourceVersion: '1', generation: 2 ** 31 },
    spec: {
      cpu: { cores: 128 }, memory: { size: '8191Gi' },
      disks: count(8, (at) => ({ name: `d${at.padStart(19, '0')}`, image: { name: 'i'.repeat(253) }, size: '8191Gi' })),
      interfaces: count(7, (at) => ({
        name: `i${at.padStart(14, '0')}`, user: { forwards: count(32, (port) => ({ name: `f${port.padStart(19, '0')}`, hostPort: 65_535, port: 65_535, protocol: 'TCP' })) },
      })),
      cloudInit: { hostname: 'h'.repeat(63), sshAuthorizedKeys: keys, userData }, stop: { gracePeriodSeconds: 86_400 },
    },
  });
  expect(machine('x').error?.issues.map(({ message }) => message)).toEqual(['userData, networkData and sshAuthorizedKeys take more than 512 KiB together']);
  const vm = machine('').data;
  if (!vm) throw new Error('the largest one is valid');
  const desire = desireOf({ vm, clusterId: 'c', claims: [], images: new Map([['i'.repeat(253), { name: 'i', uid: vm.metadata.uid }]]) });
  if ('missing' in desire) throw new Error('its image is there');
  const fleet = makeFleet(() => 0);
  fleet.want('node-1', desire);
  Object.assign(fleet.member('node-1'), { maxFrameBytes });
  expect([fleet.member('node-1').wanted.get(vm.metadata.uid)?.frameBytes, fleet.oversize('node-1', vm.metadata.uid)]).toEqual([expect.any(Number), undefined]);
  expect(fleet.member('node-1').wanted.get(vm.metadata.uid)?.frameBytes).toBeGreaterThan(3 * 1024 * 1024);
});
