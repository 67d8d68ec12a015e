import { asFault } from '#crds/kit/fault.ts';
import { failureOf } from './failure.ts';
import { page, parseFrame } from './frame.ts';
import { type Kube, KubeFault, type Query } from './kube.ts';

/** How a session begins: a streamed list, a list in pages, or a watch from where the last one ended. */
export type Beginning = { by: 'stream' } | { by: 'pages' } | { by: 'resume'; at: string };

/**
 * What a session brings, in order: every item of the list, `listed`, then changes and bookmarks. A resumed one has no list.
 * While a list is streamed its items may change and go (`lost`): the server begins with what its cache holds and catches up. Source: KEP-3157.
 */
export type Step =
  | { is: 'item' | 'lost'; raw: unknown }
  | { is: 'listed'; resourceVersion: string }
  | { is: 'put' | 'gone'; raw: unknown }
  | { is: 'bookmark'; resourceVersion: string };

/** What a session needs. `onFrame` is called at each sign of life. */
export type SessionOptions = {
  kube: Kube;
  path: string;
  selector?: Query | undefined;
  beginning: Beginning;
  /** How long the server shall keep one watch open; it bounds a connection's age, the session ends cleanly then. */
  timeoutSeconds: number;
  signal: AbortSignal;
  onFrame: () => void;
};

const pageSize = 500;

/**
 * One list and one watch. Lists ask for the newest state (resourceVersion unset), never for a cached one. Ends when the server closes the
 * watch in good order; everything else throws. Sources: KEP-3157 (streamed lists), Kubernetes API concepts ("watch bookmarks", "chunks").
 */
export async function* session(options: SessionOptions): AsyncGenerator<Step> {
  const { beginning } = options;
  if (beginning.by === 'stream') {
    yield* watch(options, { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan' }, false);
  } else {
    const at = beginning.by === 'resume' ? beginning.at : yield* pages(options);
    yield* watch(options, { resourceVersion: at }, true);
  }
}

async function* pages({ kube, path, selector, signal, onFrame }: SessionOptions): AsyncGenerator<Step, string> {
  let next: string | undefined;
  for (;;) {
    const answer = await kube.request('GET', path, { query: { ...selector, limit: pageSize, continue: next }, signal, deadlineMs: 60_000 });
    onFrame();
    const { items, metadata } = parsed(path, () => page.parse(answer));
    for (const raw of items) yield { is: 'item', raw };
    if (metadata.continue === undefined || metadata.continue === '') {
      yield { is: 'listed', resourceVersion: metadata.resourceVersion };
      return metadata.resourceVersion;
    }
    next = metadata.continue;
  }
}

async function* watch({ kube, path, selector, timeoutSeconds, signal, onFrame }: SessionOptions, query: Query, beginsListed: boolean): AsyncGenerator<Step> {
  let listed = beginsListed;
  for await (const line of kube.stream(path, { query: { ...selector, ...query, allowWatchBookmarks: true, timeoutSeconds }, signal })) {
    onFrame();
    const frame = parsed(path, () => parseFrame(line));
    switch (frame.is) {
      case 'put':
      case 'gone':
        yield listed ? frame : { is: frame.is === 'put' ? 'item' : 'lost', raw: frame.raw };
        break;
      case 'bookmark':
        if (!listed && frame.endOfInitialEvents) {
          listed = true;
          yield { is: 'listed', resourceVersion: frame.resourceVersion };
        } else if (listed) yield { is: 'bookmark', resourceVersion: frame.resourceVersion };
        break;
      case 'error':
        throw new KubeFault(`WATCH ${path}`, failureOf(undefined, frame.status));
      case 'unknown':
        break;
      default:
        frame satisfies never;
    }
  }
  if (!listed) throw new KubeFault(`WATCH ${path}`, { status: 0, reason: 'StreamCut', message: 'the stream ended before the list was complete' });
}

const parsed = <T>(path: string, parse: () => T): T => {
  try {
    return parse();
  } catch (thrown) {
    throw asFault(thrown, 'ApiServerError', `read a list or watch of ${path}`);
  }
};
