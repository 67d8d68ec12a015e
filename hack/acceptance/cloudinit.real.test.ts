// What a guest is given at its first boot, and that secrets stay where they belong.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { verdict, vmManifest } from '../bed/objects.ts';
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

  // Without a newline at its end, and with bytes that a careless hand would change.
  const networkData = [
    '# für "net0": 50 %\t\\n $HOME', 'version: 2', 'ethernets:', '  any:', '    match: {name: "eth*"}',
    '    addresses: [10.0.2.77/24]', '    gateway4: 10.0.2.2', '    nameservers: {addresses: [10.0.2.3]}',
  ].join('\n');
  // What cloud-init runs last waits for a line from the serial console, so that the guest is up and cloud-init is not done.
  const waits = '#!/bin/sh\nmkdir /run/look && mount -t vfat -o ro /dev/vdb /run/look\nsha256sum < /run/look/network-config > /dev/ttyS0\necho WAITS > /dev/ttyS0\nread -r go < /dev/ttyS0\necho "GOES $go" > /dev/ttyS0\n';

  test('networkData reaches the guest byte for byte, and it has that address; cloudInitDone is not ready before cloud-init has finished', async () => {
    const { all, linux, runs, serialHas, type, removed } = scene;
    const uid = await runs(linux('configured', {
      interfaces: [{ name: 'net0', user: {} }], cloudInit: { userData: waits, networkData }, probes: { ready: { cloudInitDone: {} } },
    }));
    await serialHas(uid, 'WAITS');
    await serialHas(uid, createHash('sha256').update(networkData).digest('hex'));
    await serialHas(uid, 'ip=10.0.2.77/24 gw=10.0.2.2 dns=10.0.2.3');
    // Its agent answers by now, so what cloud-init leaves could be seen.
    const early = await until('its agent to tell its address', async () => { const vm = await all.me.vm('configured'); return vm.status.interfaces?.[0]?.addresses?.includes('10.0.2.77') && vm; }, bootMs);
    expect([verdict(early, 'GuestReady'), verdict(early), early.status.timings?.guestReady]).toEqual(['GuestReady=False ProbeFailing', 'Ready=True Running', undefined]);
    await type(uid, 'on\n');
    await serialHas(uid, 'GOES on');
    const done = await until('it to be ready', async () => { const vm = await all.me.vm('configured'); return verdict(vm, 'GuestReady') === 'GuestReady=True ProbeSucceeded' && vm; }, bootMs);
    expect(done.status.timings?.guestReady).toEqual(expect.any(String));
    expect(await removed('configured', uid)).toEqual([]);
  }, 600_000);
});
