import { type DesiredImage, desireDigest } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';
import type { Content } from './content.ts';

/**
 * What a store knows of one wanted image.
 *
 *   importing -> ready      with `trouble`: it failed and is tried again
 *   importing -> failed     for ever, until the desire changes
 *   ready -> evicted        ready still, but its content has left the cache
 *   evicted -> importing    a VM needs it
 */
export type Entry = {
  desire: DesiredImage;
  state: ObservedImage['state'];
  progress: number;
  content?: Content;
  evicted: boolean;
  trouble?: NonNullable<ObservedImage['trouble']>;
  abort: AbortController;
  done: Promise<void>;
};

/** What is to be told of an image. Pure. */
export const observedOf = ({ desire, state, progress, content, evicted, trouble }: Entry): ObservedImage => ({
  kind: 'image', uid: desire.uid, generation: desire.generation, digest: desireDigest(desire), state, progress,
  ...(content ? { content: { digest: `sha256:${content.sha256}`, sizeBytes: content.sizeBytes, virtualSizeBytes: content.virtualSizeBytes } } : {}),
  ...(evicted ? { cached: false } : {}),
  ...(trouble ? { trouble } : {}),
});
