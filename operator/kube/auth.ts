import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { RequestOptions as HttpsOptions } from 'node:https';
import { dirname } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { asFault, Fault } from '#crds/kit/fault.ts';

// client-go's field is `tokenFile`; client-node 2.0.1 looks for `token-file` and reads it only once.
const tokenFiles = z.object({
  users: z.array(z.object({ name: z.string(), user: z.object({ tokenFile: z.string().min(1).optional() }).nullish() })).nullish(),
});

/**
 * Reads a kubeconfig file, or the ServiceAccount of the pod when `file` is unset. Token files are read again as they rotate.
 * Faults: KubeconfigInvalid.
 */
export const loadConfig = (file?: string): KubeConfig => {
  const config = new KubeConfig();
  try {
    if (file === undefined) config.loadFromCluster();
    else {
      config.loadFromFile(file);
      const rotating = new Map((tokenFiles.parse(parseYaml(readFileSync(file, 'utf8'))).users ?? []).map((each) => [each.name, each.user?.tokenFile]));
      config.users = config.users.map((user) => {
        const tokenFile = rotating.get(user.name);
        if (tokenFile === undefined) return user;
        const { token: _literal, ...rest } = user;
        return { ...rest, authProvider: { name: 'tokenFile', config: { tokenFile: tokenFile.startsWith('/') ? tokenFile : `${dirname(file)}/${tokenFile}` } } };
      });
    }
  } catch (thrown) {
    throw asFault(thrown, 'KubeconfigInvalid', `read the kubeconfig ${file ?? 'of the pod'}`);
  }
  if (config.getCurrentCluster() === null || config.getCurrentUser() === null) {
    throw new Fault('KubeconfigInvalid', `kubeconfig ${file ?? 'of the pod'}: current-context names no cluster or no user`, { retry: 'never' });
  }
  return config;
};

/** How to prove who the server and we are; a part of Node's tls options. */
export type Tls = Pick<HttpsOptions, 'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'servername' | 'rejectUnauthorized'>;

/** What one request needs: its auth headers, and how to connect. `fingerprint` changes when keys or the CA rotate. */
export type Credentials = { headers: Record<string, string>; fingerprint: string; tls: Tls; proxy: string | undefined };

const tlsNames = ['ca', 'cert', 'key', 'pfx', 'passphrase', 'servername', 'rejectUnauthorized'] as const;

/** The credentials of this moment: runs exec plugins, re-reads token, CA and certificate files. Faults: CredentialsUnavailable. */
export const credentials = async (config: KubeConfig): Promise<Credentials> => {
  const options: HttpsOptions = {};
  try {
    await config.applyToHTTPSOptions(options);
  } catch (thrown) {
    throw asFault(thrown, 'CredentialsUnavailable', 'prepare credentials for the API server');
  }
  const headers = Object.fromEntries(
    Object.entries(options.headers ?? {}).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value).trim()] as const])),
  );
  if (typeof options.auth === 'string') headers['Authorization'] = `Basic ${Buffer.from(options.auth).toString('base64')}`;
  const tls: Tls = Object.fromEntries(tlsNames.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]] as const])));
  const fingerprint = createHash('sha256').update(JSON.stringify(tls)).digest('hex');
  return { headers, tls, fingerprint, proxy: config.getCurrentCluster()?.proxyUrl };
};
