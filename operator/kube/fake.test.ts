import { kubeContract } from './contract.ts';
import { makeFakeKube } from './fake.ts';
import { fakeKinds } from './fakekinds.ts';

kubeContract('the fake', async () => ({ kube: makeFakeKube(Object.values(fakeKinds), () => new Date()), namespace: 'contract', dispose: async () => {} }));
