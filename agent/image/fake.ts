import { createHash } from 'node:crypto';
import { Fault } from '#crds/kit/fault.ts';
import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import type { ImageStore } from './store.ts';

const mebibyte = 1024 * 1024;

/** What a pretend web server answers. */
export type FakeContent = { digest: string; sizeBytes: number; virtualSizeBytes: number };

/** What lies in the pretend cache, by image uid. It outlives the store, as files outlive an agent. */
export type ImageWorld = Map<string, { desire: DesiredImage; content?: FakeContent; evicted?: boolean }>;

/** A pretend image store with handles for tests. */
export type FakeImageStore = ImageStore & {
  world: ImageWorld;
  /** What the web serves at a URL; a URL that was never offered serves 1 GiB with a digest made from the URL. */
  offer: (url: string, content: FakeContent) => void;
  /** Imports stop before their end until `release`. */
  hold: () => void;
  release: () => void;
  /** The imports of this uid end with this fault until `mend`. */
  breakImport: (uid: string, fault: Fault) => void;
  /** Lets imports succeed again; those that had failed for a while are tried again. */
  mend: (uid: string) => void;
  /** Moves a held import on, in percent. */
  progress: (uid: string, percent: number) => void;
  /** Takes a content that is there out of the cache, unless a VM uses the image. */
  evict: (uid: string) => void;
  /** How often the URL was fetched. */
  downloads: (url: string) => number;
};

type State = Pick<ObservedImage, 'state' | 'progress' | 'trouble'>;

/** The content that a URL serves when nothing else was offered. */
export const fakeContent = (url: string): FakeContent => ({
  digest: `sha256:${createHash('sha256').update(url).digest('hex')}`,
  sizeBytes: 64 * mebibyte,
  virtualSizeBytes: 1024 * mebibyte,
});

/** An image store in memory. Give the same `world` to a second one to play a restart of the agent. */
export const makeFakeImageStore = (world: ImageWorld = new Map()): FakeImageStore => {
  const states = new Map<string, State>();
  const web = new Map<string, FakeContent>();
  const fetched = new Map<string, number>();
  const broken = new Map<string, Fault>();
  const watchers = new Set<(uid: string) => void>();
  let inUse: () => ReadonlySet<string> = () => new Set();
  let held = false;

  const become = (uid: string, state: State): void => {
    states.set(uid, state);
    for (const watcher of watchers) watcher(uid);
  };
  const fits = (desire: DesiredImage, content: FakeContent): Fault | undefined => {
    if (desire.checksum?.startsWith('sha256:') && desire.checksum !== content.digest) {
      return new Fault('ChecksumMismatch', `image ${desire.name}: expected ${desire.checksum}, got ${content.digest}`, { retry: 'never' });
    }
    if (desire.digest === undefined || desire.digest === content.digest) return undefined;
    return new Fault('DigestMismatch', `image ${desire.name}: was ${desire.digest}, got ${content.digest}`, { retry: 'never' });
  };
  const finish = (uid: string): void => {
    const entry = world.get(uid);
    const state = states.get(uid);
    if (!entry || held || state?.state !== 'importing') return;
    const content = web.get(entry.desire.url) ?? fakeContent(entry.desire.url);
    const fault = broken.get(uid) ?? fits(entry.desire, content);
    if (!fault) {
      entry.content = content;
      become(uid, { state: 'ready', progress: 100 });
      return;
    }
    const final = fault.retry === 'never';
    become(uid, { state: final ? 'failed' : 'importing', progress: 0, trouble: { reason: fault.code, message: fault.message, final } });
  };
  const start = (uid: string, desire: DesiredImage): void => {
    fetched.set(desire.url, (fetched.get(desire.url) ?? 0) + 1);
    become(uid, { state: 'importing', progress: 0 });
    queueMicrotask(() => finish(uid));
  };
  const observe = (uid: string): ObservedImage | undefined => {
    const entry = world.get(uid);
    const state = states.get(uid);
    if (!entry || !state) return undefined;
    const { desire, content, evicted } = entry;
    return { kind: 'image', uid, generation: desire.generation, digest: desireDigest(desire), ...state, ...(content ? { content } : {}), ...(evicted ? { cached: false } : {}) };
  };
  const restore = (): void => {
    for (const [uid, { desire, content }] of world) {
      if (content) states.set(uid, { state: 'ready', progress: 100 });
      else start(uid, desire);
    }
  };
  restore();

  return {
    want: (desire) => {
      const entry = world.get(desire.uid);
      if (entry && desireDigest(entry.desire) === desireDigest(desire)) return;
      const content = entry?.content && entry.desire.url === desire.url && !fits(desire, entry.content) ? entry.content : undefined;
      world.set(desire.uid, { desire, ...(content ? { content, evicted: entry?.evicted ?? false } : {}) });
      if (content) become(desire.uid, { state: 'ready', progress: 100 });
      else start(desire.uid, desire);
    },
    need: (uid) => {
      const entry = world.get(uid);
      if (!entry?.evicted) return;
      world.set(uid, { desire: entry.desire });
      start(uid, entry.desire);
    },
    protect: (tell) => {
      inUse = tell;
    },
    ready: (uid) => {
      const entry = world.get(uid);
      const content = entry?.evicted ? undefined : entry?.content;
      return content && { file: `/fake/${content.digest}`, digest: content.digest, virtualSizeMiB: Math.ceil(content.virtualSizeBytes / mebibyte) };
    },
    observe,
    list: () => [...world.keys()].flatMap((uid) => observe(uid) ?? []),
    remove: async (uid, signal) => {
      signal.throwIfAborted();
      world.delete(uid);
      if (states.delete(uid)) for (const watcher of watchers) watcher(uid);
    },
    watch: (changed) => {
      watchers.add(changed);
      return { [Symbol.dispose]: () => void watchers.delete(changed) };
    },
    world,
    offer: (url, content) => void web.set(url, content),
    hold: () => {
      held = true;
    },
    release: () => {
      held = false;
      for (const uid of world.keys()) finish(uid);
    },
    breakImport: (uid, fault) => void broken.set(uid, fault),
    mend: (uid) => {
      broken.delete(uid);
      finish(uid);
    },
    progress: (uid, percent) => {
      if (states.get(uid)?.state === 'importing') become(uid, { state: 'importing', progress: percent });
    },
    evict: (uid) => {
      const entry = world.get(uid);
      if (!entry?.content || inUse().has(uid)) return;
      entry.evicted = true;
      for (const watcher of watchers) watcher(uid);
    },
    downloads: (url) => fetched.get(url) ?? 0,
  };
};
