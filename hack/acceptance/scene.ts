import { appendFile, readFile } from 'node:fs/promises';
import { z } from 'zod';
import { theGuests } from '../bed/artifacts.ts';
import { vmManifest } from '../bed/objects.ts';
import type { RealNodeOptions } from '../bed/realnode.ts';
import { until } from '../bed/until.ts';
import { bringImage, startWhole, type Whole } from '../bed/whole.ts';

/** Deadlines of waits, in milliseconds: one step of the stack, the boot of a small Linux under software emulation. */
export const stepMs = 120_000;
export const bootMs = 300_000;

const eventList = z.object({ items: z.array(z.object({ regarding: z.object({ name: z.string() }), reason: z.string(), note: z.string() })) });

/** The whole stack with two images in namespace default: `guest`, a boot sector that prints `up`, and `linux`, which answers. */
export type Scene = AsyncDisposable & {
  all: Whole;
  /** Manifest of a VM with the small Linux. */
  linux: (name: string, spec?: Record<string, unknown>) => ReturnType<typeof vmManifest>;
  /** Manifest of a VM with the boot sector. */
  tiny: (name: string, spec?: Record<string, unknown>) => ReturnType<typeof vmManifest>;
  /** Applies a VM and waits until it runs; its uid. */
  runs: (manifest: ReturnType<typeof vmManifest>) => Promise<string>;
  edit: (name: string, spec: Record<string, unknown>) => Promise<void>;
  qemuOf: (uid: string) => Promise<{ pid: number; command: readonly string[] }[]>;
  /** Waits for a text on the serial console; `after` skips what was there before. */
  serialHas: (uid: string, text: string | RegExp, after?: number) => Promise<void>;
  /** Types into the serial console. */
  type: (uid: string, text: string) => Promise<void>;
  events: (name: string) => Promise<{ reason: string; note: string }[]>;
  /** Deletes a VM and waits until it is gone, for no longer than `ms`. What it left on the node. */
  removed: (name: string, uid: string, ms?: number) => Promise<string[]>;
};

/** Starts the whole stack and has the small Linux ready. Dispose it at the end. */
export const openScene = async (options: RealNodeOptions = {}): Promise<Scene> => {
  await using opened = new AsyncDisposableStack();
  const all = opened.use(await startWhole(options));
  await bringImage(all, 'linux', await readFile((await theGuests()).small.disk), { format: 'qcow2' });
  const stack = opened.move();
  return {
    all,
    linux: (name, spec = {}) => vmManifest(name, { memory: { size: '256Mi' }, ...spec }, 'default', 'linux'),
    tiny: (name, spec = {}) => vmManifest(name, { memory: { size: '32Mi' }, ...spec }),
    runs: async (manifest) => {
      await all.me.apply(manifest);
      return (await all.me.vmIs(manifest.metadata.name, 'Ready=True Running', stepMs)).metadata.uid;
    },
    edit: async (name, spec) => void (await all.me.patchVm(name, { spec })),
    qemuOf: async (uid) => (await all.node.qemus()).filter((each) => each.uid === uid),
    serialHas: async (uid, text, after = 0) => {
      const has = (said: string) => (typeof text === 'string' ? said.includes(text) : text.test(said));
      await until(`${String(text)} on the serial console`, async () => has((await all.node.serial(uid)).slice(after)), bootMs);
    },
    type: (uid, text) => appendFile(all.node.paths.serialInput(uid), text),
    events: async (name) =>
      eventList.parse(await all.cluster.kube.request('GET', '/apis/events.k8s.io/v1/namespaces/default/events')).items.filter((each) => each.regarding.name === name),
    removed: async (name, uid, ms = stepMs) => {
      await all.me.deleteVm(name);
      await all.me.vmGone(name, ms);
      return all.node.traces(uid);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
};
