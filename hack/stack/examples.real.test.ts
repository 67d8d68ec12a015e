import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Manifest, parseManifests, pathOfManifest } from '../bed/apply.ts';
import { type ApiServer, startApiServer } from '../bed/apiserver.ts';
import { installCrds } from '../bed/crds.ts';
import { sshVm } from './example.ts';
import { planPorts } from './layout.ts';

const folder = join(import.meta.dirname, '..', '..', 'examples');
const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'));
let server: ApiServer;

beforeAll(async () => {
  server = await startApiServer();
  await installCrds(server.kube);
}, 300_000);
afterAll(async () => { await server[Symbol.asyncDispose](); }, 120_000);

/** As `kubectl create --dry-run=server` does: nothing is stored, unknown fields are refused. */
const tryOut = (object: Manifest): Promise<unknown> => {
  const inNamespace = { ...object, metadata: { ...object.metadata, namespace: 'default' } };
  const path = pathOfManifest(inNamespace);
  return server.kube.request('POST', path.slice(0, path.lastIndexOf('/')), { body: inNamespace, query: { dryRun: 'All', fieldValidation: 'Strict' } });
};

test.each(files)('a real API server takes %s', async (file) => {
  for (const object of parseManifests(readFileSync(join(folder, file), 'utf8'))) {
    await expect(tryOut(object)).resolves.toMatchObject({ kind: object.kind, spec: object['spec'] });
  }
});

test('it takes the VM with a key that hack/up writes', async () => {
  const [object] = parseManifests(sshVm('ssh-ed25519 AAAA me@here', planPorts(undefined)));
  await expect(object && tryOut(object)).resolves.toMatchObject({ kind: 'VirtualMachine' });
});

test('it refuses an example with a typo', async () => {
  const [object] = parseManifests(readFileSync(join(folder, 'stopped-vm.yaml'), 'utf8').replace('cores: 1', 'core: 1'));
  await expect(object && tryOut(object)).rejects.toThrow('core');
});
