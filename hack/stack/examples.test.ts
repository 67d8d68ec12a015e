import { expect, test } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { vmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import { imageSpec } from '#crds/v1alpha1/virtualmachineimage.ts';
import { parseManifests } from '../bed/apply.ts';

const folder = join(import.meta.dirname, '..', '..', 'examples');
const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
const specs = { VirtualMachine: vmSpec, VirtualMachineImage: imageSpec };
// Strict about what is beside the spec, too: an example with a typo teaches it.
const object = z.strictObject({
  apiVersion: z.literal('strato.dev/v1alpha1'),
  kind: z.enum(['VirtualMachine', 'VirtualMachineImage']),
  metadata: z.strictObject({ name: z.string() }),
  spec: z.unknown(),
});
const objectsOf = (file: string) => parseManifests(readFileSync(join(folder, file), 'utf8')).map((each) => object.parse(each));

test.each(files)('%s is valid', (file) => {
  const objects = objectsOf(file);
  expect(objects.length).toBeGreaterThan(0);
  for (const { kind, spec } of objects) expect(specs[kind].safeParse(spec).error).toBeUndefined();
});

test('all of them can be applied side by side: no name and no port of the node twice, and every image is there', () => {
  const objects = files.flatMap(objectsOf);
  const names = objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`);
  expect(names.length).toBe(new Set(names).size);
  const vms = objects.flatMap(({ kind, spec }) => (kind === 'VirtualMachine' ? [vmSpec.parse(spec)] : []));
  const ports = vms.flatMap(({ interfaces = [] }) => interfaces.flatMap(({ user }) => (user.forwards ?? []).map(({ hostPort }) => hostPort)));
  expect(ports.length).toBe(new Set(ports).size);
  const wanted = vms.flatMap(({ disks }) => disks.flatMap(({ image }) => (image === undefined ? [] : [`VirtualMachineImage/${image.name}`])));
  expect(wanted.filter((name) => !names.includes(name))).toEqual([]);
});

test('the README names each of them', () => {
  const readme = readFileSync(join(folder, 'README.md'), 'utf8');
  expect(files.filter((file) => !readme.includes(`(${file})`))).toEqual([]);
});
