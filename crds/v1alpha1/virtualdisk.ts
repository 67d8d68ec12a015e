import { z } from 'zod';
import { architecture } from './machine.ts';
import { conditions, type Kind, objectMeta } from './meta.ts';

/** Nothing is asked for: the object stands for a disk that is there. */
const diskSpec = z.strictObject({}).describe('Empty: a VirtualDisk stands for a disk that is there. Deleting the object deletes the data.');

const uidText = () => z.string().max(36).regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);

/** What is true of one disk that has outlived its VM; written by the operator alone, so that nobody else can say whose disk it is. */
const diskStatus = z.object({
  observedGeneration: z.int32().describe('The generation of the spec that this status is about; -1 before the operator has seen the disk.'),
  uid: uidText().describe('The uid under which its node keeps it.').optional(),
  nodeName: z.string().max(253).describe('The HypervisorNode that has it. It never moves.').optional(),
  vmName: z.string().max(253).describe('Name of the VirtualMachine that it was of, and that gets it back.').optional(),
  diskName: z.string().max(20).describe('Name of the disk in that VM.').optional(),
  namespaceUid: uidText().describe('The uid of the namespace. A namespace of the same name that comes later does not get the disk.').optional(),
  architecture: architecture.describe('Architecture of the guest that had it, as far as it is known. A VM that boots from it and names none has this one, also when its image is gone.').optional(),
  size: z.string().max(24).describe('Size that a guest sees.').optional(),
  format: z.string().max(16).describe('Format on the node.').optional(),
  state: z.enum(['Kept', 'Missing', 'Unknown', 'Deleting']).describe('Kept: it is there. Missing: the node is there and does not have it. Unknown: the node is silent. Deleting: the node removes its files.').optional(),
  conditions: conditions().optional(),
}).describe('What is true. Written by the operator alone.');

/** What is true of one disk that has outlived its VM. */
export type DiskStatus = z.output<typeof diskStatus>;

/** A VirtualDisk as it is read from the API server. */
export const virtualDisk = z.object({ metadata: objectMeta.required({ namespace: true }), spec: diskSpec.prefault({}), status: diskStatus.default({ observedGeneration: -1 }) });
/** A VirtualDisk as it is read from the API server. */
export type VirtualDisk = z.output<typeof virtualDisk>;

/** The CRD's facts. */
export const virtualDiskKind = {
  kind: 'VirtualDisk', plural: 'virtualdisks', singular: 'virtualdisk', shortNames: ['vdisk'], scope: 'Namespaced',
  description: 'A disk that has outlived its virtual machine, on the node that has it. Created by the operator for a disk with deletionPolicy Retain; the virtual machine of the same namespace and name gets it back. Deleting it deletes the data.',
  spec: diskSpec, status: diskStatus,
  columns: [
    { name: 'VM', type: 'string', jsonPath: '.status.vmName', description: 'The virtual machine that it was of, and that gets it back.' },
    { name: 'Disk', type: 'string', jsonPath: '.status.diskName', description: 'Name of the disk in that VM.' },
    { name: 'Node', type: 'string', jsonPath: '.status.nodeName', description: 'The node that has it.' },
    { name: 'Size', type: 'string', jsonPath: '.status.size', description: 'Size that a guest sees.' },
    { name: 'State', type: 'string', jsonPath: '.status.state', description: 'Whether it is there.' },
    { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status', description: 'Whether a VM can have it back.' },
    { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp', description: 'Time since creation.' },
    { name: 'Message', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].message', description: 'What is wrong.', wide: true },
  ],
} satisfies Kind;
