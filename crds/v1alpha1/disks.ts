import { z } from 'zod';
import { label, listMap, objectName, ruled, size, transition } from './meta.ts';

const maxSata = 6;

const fields = z.strictObject({
  name: label(20).describe('Name of the disk, unique in this VM. The guest sees it as the serial number of the device.'),
  image: z.strictObject({
    name: objectName().describe('Name of a VirtualMachineImage in the same namespace. It may come later: the VM waits for it.'),
  }).describe('Start from an image. Can not be changed: remove the disk and add another.').optional(),
  blank: z.strictObject({}).describe('Start empty.').optional(),
  cdrom: z.strictObject({
    image: z.strictObject({
      name: objectName().describe('Name of a VirtualMachineImage in the same namespace, an ISO image of format raw for instance.'),
    }).describe('The medium; no medium when unset. Changed and taken out at once, as soon as the guest does not hold it locked (unmount it there).').optional(),
  }).describe('A CD drive, on scsi when bus is unset. The guest reads the image itself; nothing is copied.').optional(),
  size: size('1Mi', '9Ti').describe('Size the guest sees: whole Mi, Gi or Ti. Required for a blank disk; for an image at least the size of the image, which is also the default. It only grows: at once on virtio and scsi, else at the next power cycle. The guest grows its file system itself.').optional(),
  bus: z.enum(['virtio', 'scsi', 'sata', 'nvme'])
    .describe('How the guest sees it: virtio (virtio-blk, when unset), scsi (virtio-scsi), sata (AHCI, at most six; added and removed at a power cycle only), nvme. A CD drive is on scsi or sata. An error of the node\'s disk, a full one too, halts the guest until it is over; only on nvme the guest is told of it. Changing it waits for a restart.').optional(),
  bootOrder: z.int32().min(1).max(64)
    .describe('Place among the disks that firmware tries to boot from, the lowest first; disks without one are not tried. When no disk has one the first of the list boots. Changing it waits for a restart.').optional(),
  readOnly: z.boolean().describe('The guest can not write to it; on virtio and scsi only. Changing it waits for a restart.').optional(),
  cache: z.enum(['writeback', 'none', 'writethrough'])
    .describe("What lies between the guest and the node's disk. writeback (when unset): the node's page cache; what the guest flushes is safe. none: past that cache (O_DIRECT), with the guest's flushes. writethrough: every write is safe before the guest goes on, which is slow. Changing it waits for a restart.").optional(),
  limits: ruled(
    z.strictObject({
      iops: z.int32().min(1).describe('Reads and writes in a second.').optional(),
      bytesPerSecond: size('1Mi', '9Ti').describe('Bytes read and written in a second: whole Mi, Gi or Ti.').optional(),
    }),
    { rule: 'has(self.iops) || has(self.bytesPerSecond)', message: 'give iops, bytesPerSecond or both' },
    ({ iops, bytesPerSecond }) => iops !== undefined || bytesPerSecond !== undefined,
  ).describe('What the guest may do with it; without limits when unset. Changed at once.').optional(),
  deletionPolicy: z.enum(['Delete', 'Retain'])
    .describe('What becomes of it when the VM is deleted or the disk is removed from the list. Delete (when unset): it is deleted. Retain: it becomes a VirtualDisk and stays on its node, and the VM of this namespace and name gets it back under this name when it is created anew. Changed at once.').optional(),
});

type Fields = z.output<typeof fields>;

const rules: { rule: string; message: string; holds: (disk: Fields) => boolean }[] = [
  {
    rule: '[has(self.image), has(self.blank), has(self.cdrom)].exists_one(given, given)', message: 'give exactly one of image, blank and cdrom',
    holds: ({ image, blank, cdrom }) => [image, blank, cdrom].filter((each) => each !== undefined).length === 1,
  },
  { rule: '!has(self.blank) || has(self.size)', message: 'a blank disk needs a size', holds: ({ blank, size: given }) => blank === undefined || given !== undefined },
  {
    rule: '!has(self.cdrom) || !(has(self.size) || has(self.readOnly) || has(self.cache) || has(self.limits) || has(self.deletionPolicy))', message: 'a cdrom has no size, readOnly, cache, limits and deletionPolicy',
    holds: ({ cdrom, size: given, readOnly, cache, limits, deletionPolicy }) => cdrom === undefined || [given, readOnly, cache, limits, deletionPolicy].every((each) => each === undefined),
  },
  {
    rule: "!has(self.cdrom) || !has(self.bus) || self.bus in ['scsi', 'sata']", message: 'a cdrom is on bus scsi or sata',
    holds: ({ cdrom, bus }) => cdrom === undefined || bus === undefined || bus === 'scsi' || bus === 'sata',
  },
  {
    rule: "!has(self.readOnly) || !self.readOnly || !has(self.bus) || self.bus in ['virtio', 'scsi']", message: 'readOnly is possible on virtio and scsi only',
    holds: ({ readOnly, bus }) => readOnly !== true || bus === undefined || bus === 'virtio' || bus === 'scsi',
  },
];

const sound = rules.reduce((schema, { holds, ...cel }) => ruled(schema, cel, holds), fields);

const grown = transition(sound, {
  rule: '!has(oldSelf.size) || (has(self.size) && quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0)',
  message: 'size only grows: give at least what it was; for a smaller disk add one under another name',
});

const kept = transition(grown, {
  rule: 'has(self.blank) == has(oldSelf.blank) && has(self.cdrom) == has(oldSelf.cdrom) && has(self.image) == has(oldSelf.image) && (!has(self.image) || self.image.name == oldSelf.image.name)',
  message: 'what a disk starts from can not be changed: remove it and add one under another name',
});

const list = listMap(kept.describe('One disk.'), 'name', { min: 1, max: 8 });

const ordered = ruled(list, {
  rule: 'self.all(a, !has(a.bootOrder) || self.exists_one(b, has(b.bootOrder) && b.bootOrder == a.bootOrder))', message: 'two disks have the same bootOrder',
}, (all) => {
  const orders = all.flatMap(({ bootOrder }) => bootOrder ?? []);
  return new Set(orders).size === orders.length;
});

/** The disks of a VM. */
export const disks = ruled(ordered, {
  rule: `self.filter(a, has(a.bus) && a.bus == 'sata').size() <= ${maxSata}`, message: `at most ${maxSata} disks can be on bus sata`,
}, (all) => all.filter(({ bus }) => bus === 'sata').length <= maxSata)
  .describe('Disks. They may be added, removed and grown while the guest runs; a disk that is removed is deleted once the guest has released it. All are deleted with the VM, but for those whose deletionPolicy is Retain.');

/** Name of the image that a disk starts from, or that lies in a drive. */
export const imageOf = ({ image, cdrom }: Pick<Fields, 'image' | 'cdrom'>): string | undefined => image?.name ?? cdrom?.image?.name;
