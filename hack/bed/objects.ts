import { z } from 'zod';
import { hypervisorNode, hypervisorNodeKind } from '#crds/v1alpha1/hypervisornode.ts';
import { apiVersion, type Condition } from '#crds/v1alpha1/meta.ts';
import { type VirtualDisk, virtualDisk, virtualDiskKind } from '#crds/v1alpha1/virtualdisk.ts';
import { virtualMachine, virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { virtualMachineImage, virtualMachineImageKind } from '#crds/v1alpha1/virtualmachineimage.ts';
import { isNotFound, type Kube } from '#operator/kube/kube.ts';
import { pathOf, resourceOf } from '#operator/kube/resource.ts';
import { apply, type Manifest } from './apply.ts';
import { until } from './until.ts';

/** The manifest of a small VM with one disk from an image. */
export const vmManifest = (name: string, spec: Record<string, unknown> = {}, namespace = 'default', image = 'guest'): Manifest => ({
  apiVersion, kind: 'VirtualMachine', metadata: { name, namespace },
  spec: { cpu: { cores: 1 }, memory: { size: '64Mi' }, disks: [{ name: 'root', image: { name: image } }], ...spec },
});

/** The manifest of an image; a simulated node imports it from nowhere. */
export const imageManifest = (name = 'guest', namespace = 'default'): Manifest => ({
  apiVersion, kind: 'VirtualMachineImage', metadata: { name, namespace },
  spec: { source: { http: { url: `http://images.test/${name}.qcow2` } }, format: 'qcow2' },
});

// Generous: other suites load the machine meanwhile.
const waitMs = 120_000;

const vms = resourceOf(virtualMachineKind);
const images = resourceOf(virtualMachineImageKind);
const nodes = resourceOf(hypervisorNodeKind);
const disks = resourceOf(virtualDiskKind);

const diskList = z.object({ items: z.array(virtualDisk) });

/** Anything with conditions. */
export type Judged = { status: { conditions?: readonly Condition[] | undefined } };

/** `Ready=True Running`: the verdict of a condition in one line; undefined when it is not there. */
export const verdict = ({ status }: Judged, type = 'Ready'): string | undefined => {
  const found = status.conditions?.find((each) => each.type === type);
  return found && `${type}=${found.status} ${found.reason}`;
};

/** Reads and writes Strato's objects as a user's tools do. Namespace `default` unless another is named. */
export const user = (kube: Kube, namespace = 'default') => {
  const vmAt = (name: string) => pathOf(vms, { namespace, name });
  const vm = async (name: string) => virtualMachine.parse(await kube.request('GET', vmAt(name)));
  const gone = async (path: string): Promise<boolean> => {
    try {
      await kube.request('GET', path);
      return false;
    } catch (thrown) {
      if (isNotFound(thrown)) return true;
      throw thrown;
    }
  };
  const awaited = async <T extends Judged>(what: string, read: () => Promise<T>, wanted: string, ms: number): Promise<T> => {
    const type = wanted.slice(0, wanted.indexOf('='));
    let last: string | undefined;
    try {
      return await until(what, async () => {
        const object = await read();
        last = verdict(object, type);
        return last === wanted ? object : undefined;
      }, ms);
    } catch (cause) {
      throw new Error(`${what} is never ${wanted}; last: ${last ?? 'no such condition'}`, { cause });
    }
  };
  const readImage = async (name: string) => virtualMachineImage.parse(await kube.request('GET', pathOf(images, { namespace, name })));
  const readNode = async (name: string) => hypervisorNode.parse(await kube.request('GET', pathOf(nodes, { name })));
  return {
    apply: (manifest: Manifest) => apply(kube, manifest),
    vm,
    /** A merge patch of the main resource, as `kubectl patch --type merge`. */
    patchVm: async (name: string, patch: unknown) => virtualMachine.parse(await kube.request('PATCH', vmAt(name), { body: patch, contentType: 'application/merge-patch+json' })),
    /** Places a VM by hand, as only the operator may: for tests that want more than fits. Without effect on one that is placed. */
    placeVm: async (name: string, nodeName: string) => {
      await until(`VM ${name} to be placed`, async () => {
        const { metadata: { resourceVersion }, status } = await vm(name);
        if (status.nodeName !== undefined) return true;
        const body = { metadata: { resourceVersion }, status: { nodeName, epoch: 1 } };
        await kube.request('PATCH', `${vmAt(name)}/status`, { body, contentType: 'application/merge-patch+json' });
        return true;
      }, waitMs);
    },
    deleteVm: async (name: string) => { await kube.request('DELETE', vmAt(name)); },
    vmGone: (name: string, ms = waitMs) => until(`VM ${name} to be gone`, () => gone(vmAt(name)), ms),
    /** Waits for a verdict such as `Ready=True Running`. */
    vmIs: (name: string, wanted: string, ms = waitMs) => awaited(`VM ${name}`, () => vm(name), wanted, ms),
    image: readImage,
    imageIs: (name: string, wanted: string, ms = waitMs) => awaited(`image ${name}`, () => readImage(name), wanted, ms),
    deleteImage: async (name: string) => { await kube.request('DELETE', pathOf(images, { namespace, name })); },
    imageGone: (name: string, ms = waitMs) => until(`image ${name} to be gone`, () => gone(pathOf(images, { namespace, name })), ms),
    /** Takes the object of an image away although VMs use it, as a rolled back CRD or a hasty hand does: its finalizer is stripped. */
    loseImage: async (name: string) => {
      const path = pathOf(images, { namespace, name });
      await kube.request('DELETE', path);
      if (!(await gone(path))) await kube.request('PATCH', path, { body: { metadata: { finalizers: null } }, contentType: 'application/merge-patch+json' });
    },
    /** The kept disks of a VM. */
    disksOf: async (vmName: string): Promise<VirtualDisk[]> =>
      diskList.parse(await kube.request('GET', pathOf(disks, { namespace }))).items.filter(({ status }) => status.vmName === vmName),
    deleteDisk: async (name: string) => { await kube.request('DELETE', pathOf(disks, { namespace, name })); },
    node: readNode,
    nodeIs: (name: string, wanted: string, ms = waitMs) => awaited(`node ${name}`, () => readNode(name), wanted, ms),
    patchNode: async (name: string, patch: unknown) => { await kube.request('PATCH', pathOf(nodes, { name }), { body: patch, contentType: 'application/merge-patch+json' }); },
    annotateNode: async (name: string, annotations: Record<string, string | null>) => {
      await kube.request('PATCH', pathOf(nodes, { name }), { body: { metadata: { annotations } }, contentType: 'application/merge-patch+json' });
    },
  };
};
