import type { DesiredImage } from '#crds/wire/desired.ts';
import type { ObservedImage } from '#crds/wire/observed.ts';

/** Where a ready image lies on this node: our own uncompressed qcow2, mode 0444, never written again. */
export type ReadyImage = { file: string; digest: string; virtualSizeMiB: number };

/**
 * The images of one node. An import is done once however many VMs wait for it. Those that no VM uses may be evicted to make
 * room, the least recently used first: they stay known, and are fetched again when one is needed.
 */
export type ImageStore = {
  /** Says that the node shall have an image; starts the import when it is not there. Returns at once. */
  want: (image: DesiredImage) => void;
  /** The image when it can be used; undefined while it is imported, failed or evicted. */
  ready: (uid: string) => ReadyImage | undefined;
  /** A VM waits for an image: brings back what was evicted. Returns at once. */
  need: (uid: string) => void;
  /** What is to be told of an image; undefined when nobody wanted it. */
  observe: (uid: string) => ObservedImage | undefined;
  /** All that is wanted or held. */
  list: () => readonly ObservedImage[];
  /** Takes the word of who knows which images the node's VMs use: those stay. Before it has it, nothing is evicted. */
  protect: (inUse: () => ReadonlySet<string>) => void;
  /** Ends an import and removes the image. Disks that were made from it keep their link and go on. */
  remove: (uid: string, signal: AbortSignal) => Promise<void>;
  /** Calls `changed` with the uid on every change of state and each 10 % of progress. */
  watch: (changed: (uid: string) => void) => Disposable;
};
