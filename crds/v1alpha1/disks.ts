import { z } from 'zod';
import { label, listMap, objectName, ruled, size, transition } from './meta.ts';

const source = ruled(
  z.strictObject({
    name: label(20).describe('Name of the disk, unique in this VM. The guest sees it as the serial number of the device.'),
    image: z.strictObject({
      name: objectName().describe('Name of a VirtualMachineImage in the same namespace. It may come later: the VM waits for it.'),
    }).describe('Start from an image. Can not be changed: remove the disk and add another.').optional(),
    blank: z.strictObject({}).describe('Start empty.').optional(),
    size: size('1Mi', '9Ti').describe('Size the guest sees: whole Mi, Gi or Ti. Required for a blank disk; for an image at least the size of the image, which is also the default. It only grows, at once; the guest sees it, and grows its file system itself.').optional(),
  }),
  { rule: 'has(self.image) != has(self.blank)', message: 'give exactly one of image and blank' },
  (disk) => (disk.image === undefined) !== (disk.blank === undefined),
);

const sized = ruled(
  source,
  { rule: '!has(self.blank) || has(self.size)', message: 'a blank disk needs a size' },
  (it) => it.blank === undefined || it.size !== undefined,
);

const grown = transition(sized, {
  rule: '!has(oldSelf.size) || (has(self.size) && quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0)',
  message: 'size only grows: give at least what it was; for a smaller disk add one under another name',
});

const kept = transition(grown, {
  rule: 'has(self.blank) == has(oldSelf.blank) && has(self.image) == has(oldSelf.image) && (!has(self.image) || self.image.name == oldSelf.image.name)',
  message: 'what a disk starts from can not be changed: remove it and add one under another name',
});

/** The disks of a VM. */
export const disks = listMap(kept.describe('One disk.'), 'name', { min: 1, max: 8 })
  .describe('Disks; the first one boots. They may be added, removed and grown while the guest runs; a disk that is removed is deleted once the guest has released it. All are deleted with the VM.');
