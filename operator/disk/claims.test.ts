import { describe, expect, test } from '@jest/globals';
import { vmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import { type DiskStatus, virtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import { type Claim, claimsOf, claimTrouble } from './claims.ts';

const [uid, namespaceUid, another] = ['11111111-2222-4333-8444-555555555555', '11111111-2222-4333-8444-666666666666', '11111111-2222-4333-8444-777777777777'] as const;
const { disks } = vmSpec.parse({ cpu: { cores: 1 }, memory: { size: '1Gi' }, disks: [{ name: 'root', image: { name: 'i' } }, { name: 'data', blank: {}, size: '1Gi' }, { name: 'cd', cdrom: {} }] });
const object = (over: Partial<DiskStatus> = {}, namespace = 'default') => virtualDisk.parse({
  metadata: { name: 'web-data', namespace, uid: 'o', resourceVersion: '1' }, status: { observedGeneration: 1, uid, nodeName: 'node-1', vmName: 'web', diskName: 'data', namespaceUid, ...over },
});
const sources = { link: () => 'connected' as const, keptDisks: () => [{ uid }] };
const vm = { namespace: 'default', namespaceUid, name: 'web', disks };

describe('a kept disk is for the VM', () => {
  test.each([
    ['of its namespace and name, under its name', object(), 1],
    ['not of another name', object({ vmName: 'other' }), 0],
    ['not of another namespace', object({}, 'other'), 0],
    ['not of a namespace of that name that came later', object({ namespaceUid: another }), 0],
    ['that has such a disk', object({ diskName: 'more' }), 0],
    ['that has such a disk, and not a drive', object({ diskName: 'cd' }), 0],
  ])('%s', (_, of, count) => {
    expect(claimsOf(vm, [of], sources)).toHaveLength(count);
  });

  test('not while nobody knows the namespace', () => {
    expect(claimsOf({ ...vm, namespaceUid: undefined }, [object()], sources)).toEqual([]);
  });

  test.each([
    ['here', sources],
    ['gone', { ...sources, keptDisks: () => [] }],
    ['unheard', { ...sources, link: () => 'silent' as const }],
    ['unheard', { ...sources, link: () => 'joining' as const }],
  ])('and is %s', (at, of) => {
    expect(claimsOf(vm, [object()], of)).toEqual([{ disk: 'data', object: 'web-data', kept: uid, node: 'node-1', deleting: false, at }]);
    expect(claimsOf(vm, [object({ architecture: 'arm64' })], of)).toMatchObject([{ architecture: 'arm64', at }]);
  });
});

describe('a VM can have its kept disks', () => {
  const claim = (over: Partial<Claim> = {}): Claim => ({ disk: 'data', object: 'web-data', kept: uid, node: 'node-1', deleting: false, at: 'here', ...over });
  test.each<[string, Claim[], string | undefined, string | undefined]>([
    ['when there are none', [], undefined, undefined],
    ['on the node that has them', [claim(), claim({ disk: 'more' })], undefined, undefined],
    ['not while their node is silent', [claim({ at: 'unheard' })], undefined, 'disk data was kept on node node-1, which is silent: bring it back; to start with a new disk and lose that data: kubectl -n default delete virtualdisk web-data'],
    ['not when their node has lost one', [claim(), claim({ disk: 'more', at: 'gone' })], undefined, 'disk more was kept on node node-1, which does not have it any more'],
    ['not while an object that may be for it can not be read', [claim({ at: 'unread', object: 'odd' })], undefined, 'VirtualDisk odd can not be read by this version'],
    ['not while nobody has said what becomes of one that only its node tells of', [claim({ at: 'orphaned', object: '' })], undefined, `disk data: node node-1 keeps one of an earlier VM of this name under ${uid}, and no VirtualDisk stands for it; to have it back: kubectl annotate hvn node-1 --overwrite strato.dev/adopt-orphan=${uid}; to start`],
    ['not while one is being deleted', [claim({ deleting: true })], undefined, 'is being deleted'],
    ['not when they are on two nodes', [claim(), claim({ disk: 'more', node: 'node-2' })], undefined, 'on different nodes (data on node-1, more on node-2)'],
    ['not when there are two for one disk', [claim(), claim({ object: 'old' })], undefined, 'more than one VirtualDisk is for it: web-data on node node-1, old on node node-1'],
    ['when it is bound to their node: that says itself what it has', [claim({ at: 'gone' })], 'node-1', undefined],
    ['not when it is bound to another node', [claim()], 'node-2', 'disk data was kept on node node-1 and the VM is on node-2'],
  ])('%s', (_, claims, node, trouble) => {
    const said = claimTrouble(claims, 'default', node);
    if (trouble === undefined) expect(said).toBeUndefined();
    else expect(said).toContain(trouble);
  });
});
