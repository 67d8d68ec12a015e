import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { Fault, messageOf } from '#crds/kit/fault.ts';

const form = z.guid();

/**
 * The id of this boot of the node: random, the same until the node goes down, and seen alike in every container.
 * Source: /proc/sys/kernel/random/boot_id, random(4). Faults: HostUnreadable.
 */
export const readBootId = async (file = '/proc/sys/kernel/random/boot_id'): Promise<string> => {
  try {
    return form.parse((await readFile(file, 'utf8')).trim());
  } catch (cause) {
    throw new Fault('HostUnreadable', `the boot id of the node can not be read from ${file}: ${messageOf(cause)}`, { cause });
  }
};
