import { describe, expect, test } from '@jest/globals';
import { virtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import { boardOf, lackOf, skillsOf } from './needs.ts';

const spec = (over: object = {}) => virtualMachine.parse({
  metadata: { name: 'a', namespace: 'default', uid: 'u', resourceVersion: '1' },
  spec: { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', blank: {}, size: '1Gi' }], ...over },
}).spec;

const all = skillsOf({
  architecture: 'amd64', features: ['arch:amd64', 'arch:arm64', 'uefi:amd64', 'uefi:arm64', 'secureboot:amd64', 'tpm'], cpuModels: { amd64: ['max', 'EPYC'], arm64: ['max'] },
});
const first = skillsOf({ architecture: 'amd64' });

describe('what a VM asks of its node', () => {
  test.each<[string, object, 'arm64' | undefined, object]>([
    ['nothing said', {}, undefined, { architecture: 'amd64', firmware: { type: 'bios' } }],
    ['an arm64 image', {}, 'arm64', { architecture: 'arm64', firmware: { type: 'uefi' } }],
    ['its own word against that of the image', { architecture: 'amd64' }, 'arm64', { architecture: 'amd64' }],
  ])('%s', (_, over, ofImage, board) => {
    expect(boardOf(spec(over), ofImage)).toMatchObject(board);
  });

  test.each<[object, RegExp | undefined, RegExp | undefined]>([
    [{}, undefined, undefined],
    [{ architecture: 'arm64' }, undefined, /can not run arm64 guests/],
    [{ architecture: 'arm64', firmware: { type: 'bios' } }, /there is none/, /arm64/],
    [{ firmware: { type: 'uefi' } }, undefined, /no UEFI firmware/],
    [{ firmware: { type: 'uefi', secureBoot: true } }, undefined, /no UEFI firmware/],
    [{ architecture: 'arm64', firmware: { type: 'uefi', secureBoot: true } }, /no firmware with Secure Boot for arm64/, /arm64/],
    [{ architecture: 'arm64', disks: [{ name: 'root', blank: {}, size: '1Gi', bus: 'sata' }] }, /no SATA for arm64/, /arm64/],
    [{ firmware: { tpm: true } }, undefined, /swtpm/],
    [{ devices: { vsock: true } }, /vhost-vsock/, /vhost-vsock/],
    [{ cpu: { cores: 1, model: 'EPYC' } }, undefined, /EPYC/],
    [{ cpu: { cores: 1, model: 'host' } }, /CPU model host/, /CPU model host/],
  ])('%j: a node with all of it %s, one of the first version %s', (over, onAll, onFirst) => {
    const board = boardOf(spec(over), undefined);
    for (const [skills, says] of [[all, onAll], [first, onFirst]] as const) {
      if (says) expect(lackOf(board, skills)).toMatch(says);
      else expect(lackOf(board, skills)).toBeUndefined();
    }
  });
});
