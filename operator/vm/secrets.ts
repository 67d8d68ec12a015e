import { z } from 'zod';
import { bytesOf, cloudInitBytes, isPublicKeyLine } from '#crds/v1alpha1/cloudinit.ts';
import { messageOf } from '#crds/kit/fault.ts';
import type { Reason } from '#crds/v1alpha1/reasons.ts';
import type { VmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import { isNotFound, type Kube, statusOf } from '../kube/kube.ts';

/**
 * What is known of one Secret; nothing is said about one that is `unread`. Its values leave this process in a desire only: never in a
 * log, an event, a status or a fault.
 */
export type SecretFact = { is: 'unread' } | { is: 'there'; values: ReadonlyMap<string, string> } | { is: 'absent' } | { is: 'unreadable'; why: string };

/** Key of the user-data in its Secret when the VM names none. */
const defaultKey = 'userData';
const mostKeys = 64;

const secret = z.object({ data: z.record(z.string(), z.base64()).default({}) });

/** Reads one Secret. That it is not there, or may not be read, is a fact: a VM waits for it. Rejects with the KubeFault when there is no answer: that says nothing. */
export const readSecret = async (kube: Kube, namespace: string, name: string, signal: AbortSignal): Promise<SecretFact> => {
  try {
    const raw = await kube.request('GET', `/api/v1/namespaces/${namespace}/secrets/${name}`, { signal });
    const parsed = secret.safeParse(raw);
    if (!parsed.success) return { is: 'unreadable', why: 'what the API server gave is no Secret' };
    return { is: 'there', values: new Map(Object.entries(parsed.data.data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')])) };
  } catch (thrown) {
    if (isNotFound(thrown)) return { is: 'absent' };
    const status = statusOf(thrown) ?? 0;
    if (status === 0 || status === 429 || status >= 500) throw thrown;
    return { is: 'unreadable', why: messageOf(thrown) };
  }
};

/** Names of the Secrets that a VM's cloud-init refers to. Pure. */
export const secretNames = ({ cloudInit }: Pick<VmSpec, 'cloudInit'>): string[] =>
  [...new Set([...(cloudInit?.userDataSecretRef ? [cloudInit.userDataSecretRef.name] : []), ...(cloudInit?.sshKeySecretRefs ?? []).map(({ name }) => name)])];

/** What a guest is given at its first boot, or what that waits for. */
export type CloudInit = { is: 'ready'; cloudInit: DesiredVm['cloudInit'] } | { is: 'waits'; reason: Reason; message: string } | { is: 'unread' };

/**
 * What a guest is given at its first boot. Pure. Without `secrets` it has been given that already: what came from Secrets is
 * left out then, so that no node keeps it longer than it needs to. The messages name Secrets and keys, never values.
 */
export const cloudInitOf = (name: string, { cloudInit }: Pick<VmSpec, 'cloudInit'>, secrets: ReadonlyMap<string, SecretFact> | undefined): CloudInit => {
  const { userData, userDataSecretRef, networkData, sshAuthorizedKeys = [], sshKeySecretRefs = [], hostname } = cloudInit ?? {};
  const plain = {
    // A host name does not end in a dash, as a long name may that is cut.
    hostname: hostname ?? (name.split('.')[0] ?? name).slice(0, 63).replace(/-+$/, ''),
    ...(networkData === undefined ? {} : { networkData }),
  };
  const inline = { ...plain, ...(userData === undefined ? {} : { userData }), sshAuthorizedKeys: [...sshAuthorizedKeys] };
  if (!secrets) return { is: 'ready', cloudInit: inline };
  const read = [...(userDataSecretRef ? [userDataOf(userDataSecretRef, secrets)] : []), ...sshKeySecretRefs.map((ref) => keysOf(ref.name, secrets))];
  const [trouble] = read.flatMap((each) => ('reason' in each ? [each] : []));
  if (trouble) return { is: 'waits', ...trouble };
  if (read.some((each) => 'unread' in each)) return { is: 'unread' };
  const keys = [...sshAuthorizedKeys, ...read.flatMap((each) => ('keys' in each ? each.keys : []))];
  if (keys.length > mostKeys) return { is: 'waits', reason: 'SecretInvalid', message: `cloudInit: ${keys.length} SSH keys with those of the Secrets; at most ${mostKeys} are given` };
  const text = read.flatMap((each) => ('userData' in each ? [each.userData] : []))[0] ?? userData;
  const whole = { ...plain, ...(text === undefined ? {} : { userData: text }), sshAuthorizedKeys: keys };
  if (bytesOf(whole) > cloudInitBytes) return { is: 'waits', reason: 'SecretInvalid', message: `cloudInit: with what its Secrets hold it takes more than ${cloudInitBytes / 1024} KiB` };
  return { is: 'ready', cloudInit: whole };
};

type Trouble = { reason: Reason; message: string };
/** That nobody has looked yet. */
type Unread = { unread: true };

const valuesOf = (name: string, secrets: ReadonlyMap<string, SecretFact>): { values: ReadonlyMap<string, string> } | Trouble | Unread => {
  const fact = secrets.get(name) ?? { is: 'absent' };
  switch (fact.is) {
    case 'there':
      return { values: fact.values };
    case 'unread':
      return { unread: true };
    case 'absent':
      return { reason: 'SecretNotFound', message: `cloudInit: Secret ${name} does not exist` };
    case 'unreadable':
      return { reason: 'SecretNotFound', message: `cloudInit: Secret ${name} can not be read: ${fact.why}` };
  }
};

const userDataOf = ({ name, key = defaultKey }: { name: string; key?: string | undefined }, secrets: ReadonlyMap<string, SecretFact>): { userData: string } | Trouble | Unread => {
  const read = valuesOf(name, secrets);
  if (!('values' in read)) return read;
  const userData = read.values.get(key);
  if (userData === undefined) return { reason: 'SecretInvalid', message: `cloudInit: Secret ${name} has no key ${key}` };
  return { userData };
};

/** Every value of the Secret is one or more lines as in authorized_keys; empty lines and comments are passed over. */
const keysOf = (name: string, secrets: ReadonlyMap<string, SecretFact>): { keys: string[] } | Trouble | Unread => {
  const read = valuesOf(name, secrets);
  if (!('values' in read)) return read;
  const keys: string[] = [];
  for (const [key, value] of read.values) {
    for (const line of value.split(/\r?\n/).map((each) => each.trim()).filter((each) => each !== '' && !each.startsWith('#'))) {
      if (!isPublicKeyLine(line)) return { reason: 'SecretInvalid', message: `cloudInit: key ${key} of Secret ${name} holds a line that is no SSH public key` };
      keys.push(line);
    }
  }
  return keys.length > 0 ? { keys } : { reason: 'SecretInvalid', message: `cloudInit: Secret ${name} holds no SSH public key` };
};
