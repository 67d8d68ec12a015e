import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { stringify } from 'yaml';
import type { Pair } from './keys.ts';

/** Who a kubeconfig speaks as: a client certificate that it holds in itself, or a token file that is renewed. */
export type Speaker = { cert: Pair } | { tokenFile: string };

/** The text of a kubeconfig for one cluster and one user. Equal input, equal text. */
const kubeconfigText = (server: string, authority: string, user: Record<string, string>, namespace: string): string =>
  stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'strato', cluster: { server, 'certificate-authority-data': base64(authority) } }],
    users: [{ name: 'strato', user }],
    contexts: [{ name: 'strato', context: { cluster: 'strato', user: 'strato', namespace } }],
    'current-context': 'strato',
  });

const base64 = (text: string) => Buffer.from(text).toString('base64');

/** Writes a kubeconfig (0600, by rename) unless it is there already with this content. */
export const writeKubeconfig = async (file: string, server: string, authorityFile: string, speaker: Speaker, namespace: string): Promise<void> => {
  const read = (path: string) => readFile(path, 'utf8');
  const user = 'tokenFile' in speaker
    ? { tokenFile: speaker.tokenFile }
    : { 'client-certificate-data': base64(await read(speaker.cert.cert)), 'client-key-data': base64(await read(speaker.cert.key)) };
  const text = kubeconfigText(server, await read(authorityFile), user, namespace);
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  if ((await read(file).catch(() => '')) === text) return;
  await writeFile(`${file}.new`, text, { mode: 0o600 });
  await rename(`${file}.new`, file);
};
