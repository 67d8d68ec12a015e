import { storageContract } from './contract.ts';
import { makeFakeStorage } from './fake.ts';

storageContract('fake', async () => {
  const storage = makeFakeStorage();
  return {
    storage,
    image: { file: '/fake/image', digest: `sha256:${'0'.repeat(64)}`, virtualSizeMiB: 64 },
    reopen: () => makeFakeStorage(storage.world, storage.kept),
    unixId: 100_000,
    close: async () => {},
  };
});
