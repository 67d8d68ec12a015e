// What a guest is given at its first boot, and that secrets stay where they belong.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { vmManifest } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { until } from '../bed/until.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

const canary = 'canary-5f1c0b7e';
const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGm0yX6Jc0v2h3r2m2c0w9o0yF1m0m0yX6Jc0v2h3r2m';
const secretOf = (name: string, values: Record<string, string>) => ({ apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace: 'default' }, stringData: values });

describe('cloud-init', () => {
  const scene = opened(openScene);

  const recordOf = async (uid: string) => readFile(join(scene.all.node.paths.ledger, `${uid}.json`), 'utf8');

  test('G07: a VM, its image and its Secrets in the worst order: all is well without a second apply', async () => {
    const { all, serialHas } = scene;
    const cloudInit = { hostname: 'from-secret', userDataSecretRef: { name: 'data', key: 'script' }, sshKeySecretRefs: [{ name: 'keys' }] };
    await all.me.apply(vmManifest('late', { memory: { size: '256Mi' }, cloudInit }, 'default', 'later'));
    await all.me.vmIs('late', 'Ready=False ImageNotFound', stepMs);
    const linux = await all.me.image('linux');
    await all.me.apply({ apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachineImage', metadata: { name: 'later', namespace: 'default' }, spec: { source: linux.spec.source, format: linux.spec.format } });
    await all.me.vmIs('late', 'Ready=False SecretNotFound', stepMs);
    await all.me.apply(secretOf('data', { wrong: canary }));
    await all.me.vmIs('late', 'Ready=False SecretInvalid', stepMs);
    await all.me.apply(secretOf('data', { script: `#!/bin/sh\n# ${canary}\necho "RAN $(hostname)" > /dev/ttyS0\n` }));
    await all.me.apply(secretOf('keys', { me: `${key} ${canary}\n` }));
    const { metadata: { uid } } = await all.me.vmIs('late', 'Ready=True Running', bootMs);
    await serialHas(uid, 'RAN from-secret');
    await serialHas(uid, /keys=1/);
  }, 600_000);

  test('A58: what is in a Secret is in no status, event, log or audit record, and after the first boot in no record of the node', async () => {
    const { all, events } = scene;
    const vm = await all.me.vm('late');
    await until('the node to forget it', async () => !(await recordOf(vm.metadata.uid)).includes(canary), stepMs);
    const told = { vm, events: await events('late'), operator: all.operator.lines };
    expect(JSON.stringify(told)).not.toContain(canary);
    expect(await all.node.log()).not.toContain(canary);
    const runs = all.node.paths.runs(vm.metadata.uid);
    for (const run of await readdir(runs)) expect(await readFile(join(runs, run, 'start.json'), 'utf8')).not.toContain(canary);
    for (const { command } of await scene.qemuOf(vm.metadata.uid)) expect(command.join(' ')).not.toContain(canary);
  }, bootMs);

  test('a Secret that changes later reaches nobody who has booted, and a guest that boots for the first time', async () => {
    const { all, linux, runs, serialHas, removed } = scene;
    const old = await all.me.vm('late');
    await all.me.apply(secretOf('data', { script: '#!/bin/sh\necho "RAN anew" > /dev/ttyS0\n' }));
    const uid = await runs(linux('fresh', { cloudInit: { userDataSecretRef: { name: 'data', key: 'script' } } }));
    await serialHas(uid, 'RAN anew');
    expect(await recordOf(old.metadata.uid)).not.toContain('RAN anew');
    expect([await removed('fresh', uid), await removed('late', old.metadata.uid)]).toEqual([[], []]);
  }, 600_000);
});
