import { z } from 'zod';
import { label, listMap, objectName, ruled, text } from './meta.ts';

const keyLine = text(8192, 1);
const keyType = /^(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+)$/;
const keyData = /^[A-Za-z0-9+/]+=*$/;

/**
 * Whether a text is one line as in authorized_keys: options, a type, the key and a comment. Word by word: one pattern for all of it took minutes for a line
 * that was written for that. Pure. Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT.
 */
export const isPublicKeyLine = (line: string): boolean => {
  if (!keyLine.safeParse(line).success || /[\r\n]/.test(line)) return false;
  const words = line.split(' ');
  return words.some((word, at) => keyType.test(word) && keyData.test(words[at + 1] ?? ''));
};

const secretKey = z.string().min(1).max(253).regex(/^[-._a-zA-Z0-9]+$/);

/** Most bytes of all texts together: six times as much, its worst form in JSON, fits into one frame to a node. */
export const cloudInitBytes = 512 * 1024;

const bytesRule = {
  // By has(), not by orValue(): that hides the bounds from the API server's estimate of the cost, and the whole CRD is refused.
  rule: `(has(self.userData) ? size(bytes(self.userData)) : 0) + (has(self.networkData) ? size(bytes(self.networkData)) : 0) + (has(self.sshAuthorizedKeys) ? self.sshAuthorizedKeys.map(key, size(bytes(key))).sum() : 0) <= ${cloudInitBytes}`,
  message: `userData, networkData and sshAuthorizedKeys take more than ${cloudInitBytes / 1024} KiB together`,
};

/** Bytes that the texts of a cloud-init take. */
export const bytesOf = (it: { userData?: string | undefined; networkData?: string | undefined; sshAuthorizedKeys?: readonly string[] | undefined }): number =>
  [it.userData ?? '', it.networkData ?? '', ...(it.sshAuthorizedKeys ?? [])].reduce((sum, each) => sum + Buffer.byteLength(each), 0);

/** What a guest is given at its first boot. */
export const cloudInit = ruled(ruled(
  z.strictObject({
    userData: text(262144).describe('cloud-init user-data (a #cloud-config document or a script beginning with #!). Do not put secrets here: everyone who may read the VM can read them.').optional(),
    userDataSecretRef: z.strictObject({
      name: objectName().describe('Name of a Secret in the same namespace. It may come later: the VM waits for it.'),
      key: secretKey.describe('Key of the user-data in the Secret; userData when unset.').optional(),
    }).describe('User-data from a Secret, read when the VM boots for the first time.').optional(),
    networkData: text(65536).describe("cloud-init network configuration (version 1 or 2); DHCP on every card when unset.").optional(),
    sshAuthorizedKeys: z.array(text(8192, 1).regex(/^[^\r\n]+$/).describe('One line as in authorized_keys.')).max(64).meta({ 'x-kubernetes-list-type': 'atomic' }).describe('SSH public keys of the default user.').optional(),
    sshKeySecretRefs: listMap(
      z.strictObject({ name: objectName().describe('Name of a Secret in the same namespace, each value of which holds SSH public keys, one a line.') }).describe('One Secret.'),
      'name', { max: 8 },
    ).describe('Secrets with further SSH public keys of the default user, read when the VM boots for the first time.').optional(),
    hostname: label(63).describe('Host name of the guest; the name of the VM when unset.').optional(),
  }),
  { rule: '!(has(self.userData) && has(self.userDataSecretRef))', message: 'give at most one of userData and userDataSecretRef' },
  (it) => it.userData === undefined || it.userDataSecretRef === undefined,
), bytesRule, (it) => bytesOf(it) <= cloudInitBytes).describe('Given to the guest as a cloud-init NoCloud seed at its first boot; later edits, also of the Secrets, do not reach a guest that has booted.');
