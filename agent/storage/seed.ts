import type { Seed } from './driver.ts';
import { fatImage } from './fat.ts';

/**
 * The files of a cloud-init NoCloud seed. Pure. The user's own user-data is passed byte for byte, whatever its kind
 * (cloud-config, script, include, MIME, template): keys go into `public-keys` of the meta-data, which cloud-init joins
 * with `ssh_authorized_keys`. Source: cloud-init, "NoCloud" and `normalize_pubkey_data` in cloudinit/sources.
 */
export const seedFiles = ({ instanceId, hostname, userData, networkData, sshAuthorizedKeys }: Seed): { metaData: string; userData: string; networkData?: string } => ({
  metaData: `instance-id: ${scalar(instanceId)}\nlocal-hostname: ${scalar(hostname)}\n${list('public-keys', sshAuthorizedKeys)}`,
  userData: userData ?? `#cloud-config\n${list('ssh_authorized_keys', sshAuthorizedKeys) || '{}\n'}`,
  ...(networkData === undefined ? {} : { networkData }),
});

/** The seed disk: FAT with the label CIDATA. Pure; the same seed gives the same bytes. */
export const seedImage = (seed: Seed): Uint8Array => {
  const { metaData, userData, networkData } = seedFiles(seed);
  return fatImage('CIDATA', [
    { name: 'meta-data', bytes: Buffer.from(metaData) },
    { name: 'user-data', bytes: Buffer.from(userData) },
    ...(networkData === undefined ? [] : [{ name: 'network-config', bytes: Buffer.from(networkData) }]),
  ]);
};

const list = (name: string, items: readonly string[]): string =>
  items.length === 0 ? '' : `${name}:\n${items.map((item) => `  - ${scalar(item)}\n`).join('')}`;

/** Plain where YAML can not take it for anything else, so that a guest may read it by grep; else a JSON string, which is YAML. */
const scalar = (text: string): string => (plain.test(text) && named.test(text) && !reserved.test(text) ? text : JSON.stringify(text));

const plain = /^[A-Za-z0-9]([A-Za-z0-9 +/=@._-]*[A-Za-z0-9+/=@._-])?$/;
// Begins with a letter, holds one that no number has (1e3, 0x1f, 0o17), or is a uuid.
const named = /^[A-Za-z]|[g-np-wyz]|^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const reserved = /^(true|false|yes|no|on|off|null|y|n)$/i;
