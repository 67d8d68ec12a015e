import { z } from 'zod';
import { hypervisorNodeKind } from '#crds/v1alpha1/hypervisornode.ts';
import { apiVersion, type Kind } from '#crds/v1alpha1/meta.ts';
import { virtualDiskKind } from '#crds/v1alpha1/virtualdisk.ts';
import { virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { virtualMachineImageKind } from '#crds/v1alpha1/virtualmachineimage.ts';
import type { FakeKind } from './fakestore.ts';
import { events, leases, namespaces, resourceOf } from './resource.ts';

const ours = (kind: Kind): FakeKind => ({
  resource: resourceOf(kind),
  apiVersion,
  kind: kind.kind,
  status: true,
  statusDefault: { observedGeneration: -1 },
  refuse: (object) => {
    const checked = z.looseObject({ spec: kind.spec }).safeParse(object);
    return checked.success ? undefined : checked.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ');
  },
});

/** The kinds of the operator's tests, as the fake API serves them. */
export const fakeKinds = {
  vm: ours(virtualMachineKind),
  image: ours(virtualMachineImageKind),
  disk: ours(virtualDiskKind),
  node: ours(hypervisorNodeKind),
  namespace: { resource: namespaces, apiVersion: 'v1', kind: 'Namespace' },
  lease: { resource: leases, apiVersion: 'coordination.k8s.io/v1', kind: 'Lease' },
  event: { resource: events, apiVersion: 'events.k8s.io/v1', kind: 'Event' },
  configMap: { resource: { group: '', version: 'v1', plural: 'configmaps', namespaced: true }, apiVersion: 'v1', kind: 'ConfigMap' },
} satisfies Record<string, FakeKind>;
