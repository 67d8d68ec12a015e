import { startApiServer } from '#hack/bed/apiserver.ts';
import { installCrds } from '#hack/bed/crds.ts';
import { kubeContract } from './contract.ts';

kubeContract('the real one', async () => {
  const server = await startApiServer();
  await installCrds(server.kube);
  await server.kube.request('POST', '/api/v1/namespaces', { body: { metadata: { name: 'contract' } } });
  return { kube: server.kube, namespace: 'contract', dispose: async () => { await server[Symbol.asyncDispose](); } };
});
