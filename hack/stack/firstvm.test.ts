import { expect, test } from '@jest/globals';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';
import { virtualMachine, vmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import { imageSpec } from '#crds/v1alpha1/virtualmachineimage.ts';
import { exampleFor, sshVm } from './example.ts';
import { judge, readyLine } from './firstvm.ts';
import { planPorts } from './layout.ts';

const example = join(import.meta.dirname, '..', '..', 'examples', 'first-vm.yaml');
const spec = { cpu: { cores: 1 }, memory: { size: '256Mi' }, disks: [{ name: 'root', image: { name: 'guest' } }] };
const vm = (ready: { status: string; reason?: string; observedGeneration?: number } | undefined, more: { powerState?: string; deletionTimestamp?: string } = {}) => {
  const { powerState = 'Running', ...meta } = more;
  const condition = ready && { type: 'Ready', observedGeneration: 3, lastTransitionTime: '', reason: '', message: 'as said', ...ready };
  return virtualMachine.parse({
    metadata: { name: 'first-vm', namespace: 'default', uid: 'u', resourceVersion: '1', generation: 3, ...meta },
    spec: { ...spec, powerState },
    status: { observedGeneration: 3, phase: 'Starting', conditions: condition ? [condition] : [] },
  });
};

test.each([
  ['nothing is said of it', vm(undefined), { is: 'waiting', why: 'the operator has not seen it yet' }],
  ['what is said is of an older spec', vm({ status: 'True', observedGeneration: 2 }), { is: 'waiting', why: 'the operator has not seen it yet' }],
  ['it is Ready', vm({ status: 'True' }), { is: 'up' }],
  ['it is Ready and stopped', vm({ status: 'True' }, { powerState: 'Stopped' }), { is: 'off', as: 'Stopped' }],
  ['its guest was ended by hack/down', vm({ status: 'False', reason: 'GuestShutdown' }), { is: 'ended', why: 'as said' }],
  ['it starts', vm({ status: 'False', reason: 'Starting' }), { is: 'waiting', why: 'Starting: as said' }],
  ['its node is silent', vm({ status: 'Unknown', reason: 'NodeUnreachable' }), { is: 'waiting', why: 'Starting: as said' }],
  ['it is being deleted', vm({ status: 'True' }, { deletionTimestamp: 'now' }), { is: 'leaving' }],
])('when %s', (_, seen, verdict) => {
  expect(judge(seen)).toEqual(verdict);
});

test.each<[string, string | undefined]>([
  ['[    1.2] virtio\r\nSTRATO ready host=first-vm\r\n#', 'STRATO ready host=first-vm'],
  ['STRATO dhcp eth0 ip=10.0.2.15\r\n', undefined],
  ['echo STRATO ready', undefined],
  ['', undefined],
])('the serial console %j', (text, is) => {
  expect(readyLine(text)).toBe(is);
});

test('the example is valid, and is applied as it stands on the usual ports', async () => {
  const text = await readFile(example, 'utf8');
  const [image, machine] = parseAllDocuments(text).map((document): { spec: unknown } => document.toJS());
  expect(imageSpec.safeParse(image?.spec).success).toBe(true);
  expect(vmSpec.safeParse(machine?.spec).success).toBe(true);
  expect(exampleFor(text, planPorts(undefined))).toBe(text);
});

test('beside another stack the example has other ports', async () => {
  const text = exampleFor(await readFile(example, 'utf8'), planPorts('24000'));
  expect(text).toContain('http://127.0.0.1:24004/guest.qcow2');
  expect(text).toContain('hostPort: 24007');
});

test('the VM with a key is valid', () => {
  const { spec: made }: { spec: unknown } = parse(sshVm('ssh-ed25519 AAAA me@here\n', planPorts(undefined)));
  expect(vmSpec.parse(made).cloudInit?.sshAuthorizedKeys).toEqual(['ssh-ed25519 AAAA me@here']);
});
