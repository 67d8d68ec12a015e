import { Fault } from '#crds/kit/fault.ts';

/** Query parameters of a request; undefined ones are left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** The verbs of the Kubernetes API. */
export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** One request; `deadlineMs` bounds it beside `signal` (30 s when unset), `contentType` is JSON when unset. */
export type RequestOptions = {
  query?: Query | undefined;
  body?: unknown;
  contentType?: string | undefined;
  signal?: AbortSignal | undefined;
  deadlineMs?: number | undefined;
};

/**
 * A Kubernetes API server, real (`client.ts`) or in memory (`fake.ts`). Both pass the suite of `contract.ts`.
 * Paths begin with `/api` or `/apis`. What comes back is parsed JSON that nobody has checked yet. Every failure is a `KubeFault`.
 */
export type Kube = {
  request: (method: Method, path: string, options?: RequestOptions) => Promise<unknown>;
  /**
   * The frames of a watch, one a line. Ends without a fault only when the server closed it between two lines;
   * a cut, a half line or an HTTP error throws. Time limits are the reader's: an abort of `signal` throws.
   */
  stream: (path: string, options: { query?: Query | undefined; signal: AbortSignal }) => AsyncIterable<unknown>;
};

/** The same API server over connections of their own, for what nothing else may keep waiting: our lead, and strangers' tokens, which come as strangers please. */
export type Lanes = { lease: Kube; reviews: Kube };

/** What the API server said about a failure. `status` is the HTTP code, 0 when it did not answer. */
export type KubeFailure = {
  status: number;
  /** The `message` of the Status object; never a body. */
  message: string;
  /** The `reason` of the Status object, or our word when there is none. */
  reason?: string | undefined;
  /** `details.causes[].reason` of the Status object. */
  causes?: readonly string[] | undefined;
  /** From `Retry-After` or `details.retryAfterSeconds`. */
  retryAfterMs?: number | undefined;
  cause?: unknown;
};

/**
 * A request to the API server that failed. `code` is the Status reason (Conflict, NotFound, AlreadyExists, Expired,
 * TooManyRequests...), or ApiServerUnreachable, ApiServerTimeout, ApiServerError, StreamCut. Always worth another try later.
 * Source: k8s.io/apimachinery/pkg/apis/meta/v1 StatusReason.
 */
export class KubeFault extends Fault {
  readonly status: number;
  readonly causes: readonly string[];
  readonly retryAfterMs: number | undefined;

  constructor(doing: string, failure: KubeFailure) {
    const code = failure.reason !== undefined && /^[A-Z][A-Za-z]{1,62}$/.test(failure.reason) ? failure.reason : codeOf(failure.status);
    super(code, `${doing}: ${failure.status === 0 ? '' : `${failure.status} `}${code}: ${failure.message.slice(0, 1_000)}`, { cause: failure.cause });
    this.name = 'KubeFault';
    this.status = failure.status;
    this.causes = failure.causes ?? [];
    this.retryAfterMs = failure.retryAfterMs;
  }
}

const codes: Readonly<Record<number, string>> = {
  0: 'ApiServerUnreachable', 400: 'BadRequest', 401: 'Unauthorized', 403: 'Forbidden', 404: 'NotFound', 409: 'Conflict', 410: 'Expired', 422: 'Invalid', 429: 'TooManyRequests',
};

const codeOf = (status: number): string => codes[status] ?? 'ApiServerError';

/** The HTTP code of a KubeFault, 0 when there was no answer, undefined for anything else thrown. */
export const statusOf = (thrown: unknown): number | undefined => (thrown instanceof KubeFault ? thrown.status : undefined);

/** The object is not there: the server answered so. */
export const isNotFound = (thrown: unknown): boolean => statusOf(thrown) === 404;

/** The object changed since we read it: read it again. (AlreadyExists is 409 too and is not this.) */
export const isConflict = (thrown: unknown): boolean => thrown instanceof KubeFault && thrown.status === 409 && thrown.code === 'Conflict';

/** An object of that name exists already. */
export const isAlreadyExists = (thrown: unknown): boolean => thrown instanceof KubeFault && thrown.code === 'AlreadyExists';

/**
 * The server's watch cache has not reached a version within 3 s. It says nothing of the history: a stalled etcd is enough.
 * Source: apimachinery `NewTooLargeResourceVersionError`; apiserver `waitUntilFreshAndBlock`.
 */
export const isTooLargeVersion = (thrown: unknown): boolean =>
  thrown instanceof KubeFault && thrown.status === 504 && (thrown.causes.includes('ResourceVersionTooLarge') || thrown.message.includes('Too large resource version'));
