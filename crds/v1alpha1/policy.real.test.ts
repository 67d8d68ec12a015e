// The CRDs and the policies that come with them, on a real API server.
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { messageOf } from '#crds/kit/fault.ts';
import { type ApiServer, startApiServer } from '#hack/bed/apiserver.ts';
import { installCrds } from '#hack/bed/crds.ts';
import { kubectl } from '#hack/bed/kubectl.ts';
import { user, vmManifest } from '#hack/bed/objects.ts';
import { until } from '#hack/bed/until.ts';
import { kinds } from './kinds.ts';
import { allowDeleteAnnotation } from './names.ts';

const vms = '/apis/strato.dev/v1alpha1/namespaces/default/virtualmachines';
const crd = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/virtualmachines.strato.dev';

describe('the policies', () => {
  let server: ApiServer;
  let clientSide = '';
  let me: ReturnType<typeof user>;
  const refusal = async (path: string, query: Record<string, string> = {}): Promise<string | undefined> =>
    server.kube.request('DELETE', path, { query }).then(() => undefined, messageOf);

  beforeAll(async () => {
    server = await startApiServer();
    clientSide = await kubectl(server, ['apply', '-f', join(import.meta.dirname, '..', 'generated')]);
    await installCrds(server.kube);
    me = user(server.kube);
    await me.apply(vmManifest('kept', { deletionProtection: true }));
    // A policy is in force a moment after it was applied.
    await until('the policies to be in force', async () => (await refusal(`${vms}/kept`, { dryRun: 'All' })) !== undefined && (await refusal(crd, { dryRun: 'All' })) !== undefined, 120_000);
  }, 300_000);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  }, 60_000);

  test('G15: every file applies client-side too, as kubectl does unless it is told otherwise', () => {
    const applied = clientSide.trimEnd().split('\n');
    expect(applied.filter((line) => line.endsWith(' created')).length).toBe(applied.length);
    for (const { plural } of kinds) expect(clientSide).toContain(`customresourcedefinition.apiextensions.k8s.io/${plural}.strato.dev created`);
  });

  test('a protected VM is not deleted; the refusal says the command that allows it', async () => {
    expect(await refusal(`${vms}/kept`)).toMatch(/VM kept is protected.*kubectl -n default patch vm kept.*"deletionProtection":false/);
  });

  test('a deletion of all leaves it too', async () => {
    await me.apply(vmManifest('other'));
    await refusal(vms);
    expect((await me.vm('kept')).metadata.deletionTimestamp).toBeUndefined();
  });

  test('without protection it is deleted', async () => {
    await me.patchVm('kept', { spec: { deletionProtection: false } });
    expect(await refusal(`${vms}/kept`)).toBeUndefined();
  });

  test('a status is written by who may do so by a ClusterRole; all rights in a namespace are none', async () => {
    const rbac = 'rbac.authorization.k8s.io';
    const subjects = [{ kind: 'User', apiGroup: rbac, name: 'tenant' }];
    await me.apply({ apiVersion: `${rbac}/v1`, kind: 'Role', metadata: { name: 'all', namespace: 'default' }, rules: [{ apiGroups: ['strato.dev'], resources: ['*'], verbs: ['*'] }] });
    await me.apply({ apiVersion: `${rbac}/v1`, kind: 'RoleBinding', metadata: { name: 'all', namespace: 'default' }, roleRef: { apiGroup: rbac, kind: 'Role', name: 'all' }, subjects });
    const forge = () => kubectl(server, ['--as=tenant', 'patch', 'vm', 'other', '--subresource=status', '--type=merge', '-p', '{"status":{"nodeName":"node-1"}}']);
    await me.apply(vmManifest('other'));
    // A Role is known to the authorizer a moment after it was applied.
    await until('the Role to be known', () => kubectl(server, ['--as=tenant', 'get', 'vm', 'other']), 120_000);
    await expect(forge()).rejects.toThrow(/status is written by Strato's operator alone: it takes the verb write-status on hypervisornodes\.strato\.dev/);
    expect((await me.vm('other')).status.nodeName).toBeUndefined();
    await me.apply({ apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name: 'writer' }, rules: [{ apiGroups: ['strato.dev'], resources: ['hypervisornodes'], verbs: ['write-status'] }] });
    await me.apply({ apiVersion: `${rbac}/v1`, kind: 'ClusterRoleBinding', metadata: { name: 'writer' }, roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'writer' }, subjects });
    expect(await until('the ClusterRole to be known', forge, 120_000)).toContain('patched');
  });

  test('our CRDs are not deleted before their annotation allows it; others are', async () => {
    expect(await refusal(crd)).toMatch(/would delete every VirtualMachine.*kubectl annotate crd virtualmachines\.strato\.dev strato\.dev\/allow-delete=true/);
    await server.kube.request('PATCH', crd, { body: { metadata: { annotations: { [allowDeleteAnnotation]: 'true' } } }, contentType: 'application/merge-patch+json' });
    expect(await refusal(crd, { dryRun: 'All' })).toBeUndefined();
  });
});
