import { chown, mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { Paths } from '../../host/paths.ts';
import { platform } from '../../host/platform.ts';
import { isThere, makeWhole, syncDirectory } from '../../storage/durable.ts';
import type { Architecture, MachineSpec } from '../driver.ts';
import { boards } from './board.ts';

/** A UEFI firmware of the node: its code, and what a fresh variable store begins with. */
export type Uefi = { code: string; variables: string };
/** The UEFI firmware of the node by architecture: a plain one and one that starts signed software only. */
export type UefiFirmware = Partial<Record<Architecture, { plain?: Uefi; secure?: Uefi }>>;

/** Folders of descriptors; a file in an earlier one hides that of the same name in a later. Source: QEMU docs/interop/firmware.json. */
const firmwareFolders = platform.firmware;

const file = z.object({ filename: z.string().startsWith('/'), format: z.literal('raw') });
const descriptor = z.object({
  'interface-types': z.array(z.string()),
  mapping: z.object({ device: z.literal('flash'), executable: file, 'nvram-template': file }),
  targets: z.array(z.object({ architecture: z.string(), machines: z.array(z.string()) })),
  features: z.array(z.string()),
});

/** One descriptor file by its name, as text. */
export type DescriptorFile = { name: string; text: string };

/**
 * What the descriptors of a node offer. Pure. They are taken in the order of their names, the first that fits wins. Secure: with
 * Secure Boot, keys enrolled, and variables that the guest can not write past the firmware (SMM). Files of another form are of no use to us and passed over.
 */
export const chooseFirmware = (files: readonly DescriptorFile[]): UefiFirmware => {
  const found: UefiFirmware = {};
  for (const { text } of files.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const read = descriptor.safeParse(jsonOf(text));
    if (!read.success || !read.data['interface-types'].includes('uefi')) continue;
    const { features, mapping, targets } = read.data;
    const kind = features.includes('secure-boot') ? (isSecure(features) ? 'secure' : undefined) : 'plain';
    for (const architecture of ['amd64', 'arm64'] as const) {
      const fits = targets.some((target) => target.architecture === boards[architecture].qemuName && target.machines.some((machine) => /^(pc-q35|virt)-/.test(machine)));
      if (!fits || kind === undefined || found[architecture]?.[kind]) continue;
      found[architecture] = { ...found[architecture], [kind]: { code: mapping.executable.filename, variables: mapping['nvram-template'].filename } };
    }
  }
  return found;
};

const isSecure = (features: readonly string[]): boolean => features.includes('enrolled-keys') && features.includes('requires-smm');

/** Looks for the UEFI firmware of the node. */
export const findFirmware = async (folders: readonly string[] = firmwareFolders): Promise<UefiFirmware> => {
  const files = new Map<string, string>();
  for (const folder of folders) {
    for (const name of await readdir(folder).catch(() => [])) {
      if (name.endsWith('.json') && !files.has(name)) files.set(name, await readFile(join(folder, name), 'utf8').catch(() => ''));
    }
  }
  return chooseFirmware([...files].map(([name, text]) => ({ name, text })));
};

const jsonOf = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

/** The firmware that a machine asks for; undefined for a BIOS. Fault FeatureMissing. */
export const firmwareFor = ({ architecture, firmware }: Pick<MachineSpec, 'architecture' | 'firmware'>, node: UefiFirmware): Uefi | undefined => {
  if (firmware.type === 'bios') return undefined;
  const found = node[architecture]?.[firmware.secureBoot ? 'secure' : 'plain'];
  if (found) return found;
  throw new Fault('FeatureMissing', `the node has no UEFI firmware${firmware.secureBoot ? ' with Secure Boot' : ''} for ${architecture}; install it (Debian: ovmf, qemu-efi-aarch64)`);
};

/** Name of the variable store and of the TPM's folder in a VM's directory. */
export const variablesFile = 'vars.fd';
const tpmFolder = 'tpm';

/**
 * Makes what the firmware of a machine remembers, at its first start. Later it must be there: boot entries, keys and what was
 * sealed to the TPM are never made anew. Fault FirmwareMissing.
 */
export const prepareFirmware = async (paths: Paths, { uid, unixId, firmware, firmwareMade }: MachineSpec, uefi: Uefi | undefined): Promise<void> => {
  const lost = (what: string): Fault => new Fault('FirmwareMissing', `VM ${uid}: ${what} is gone from the node; it is never made anew. Restore it, or delete the VM`, { retry: 'never' });
  const variables = join(paths.vm(uid), variablesFile);
  if (uefi && !(await isThere(variables))) {
    if (firmwareMade) throw lost('its UEFI variable store');
    const template = await readFile(uefi.variables);
    // Whoever makes it first has it: it is never replaced.
    await makeWhole(variables, { mode: 0o600, uid: unixId, gid: unixId }, (handle) => handle.writeFile(template));
  }
  const tpm = join(paths.vm(uid), tpmFolder);
  if (firmware.tpm && !(await isThere(tpm))) {
    if (firmwareMade) throw lost('the state of its TPM');
    await makeOwned(tpm, unixId);
    await syncDirectory(paths.vm(uid));
  }
};

const makeOwned = async (folder: string, unixId: number): Promise<void> => {
  await mkdir(folder, { mode: 0o700 });
  await chown(folder, unixId, unixId);
};
