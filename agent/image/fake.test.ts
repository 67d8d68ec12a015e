import { imageStoreContract } from './contract.ts';
import { fakeContent, makeFakeImageStore } from './fake.ts';

imageStoreContract('fake', async () => {
  const store = makeFakeImageStore();
  return {
    store,
    offer: async (virtualSizeMiB) => {
      const url = `http://images.test/${virtualSizeMiB}.qcow2`;
      const content = { ...fakeContent(url), virtualSizeBytes: virtualSizeMiB * 1024 * 1024 };
      store.offer(url, content);
      return { url, digest: content.digest };
    },
    hold: store.hold,
    release: store.release,
    downloads: store.downloads,
    evict: async (uid) => store.evict(uid),
    reopen: async () => makeFakeImageStore(store.world),
    close: async () => {},
  };
});
