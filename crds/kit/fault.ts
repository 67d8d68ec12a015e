/** Whether trying the same thing again can help: `never` until its input changes, `later` with backoff. */
export type Retry = 'never' | 'later';

/**
 * A surprise with a name. `code` becomes a condition reason, so it is UpperCamelCase; the message says
 * what was tried, on what, and what to do next. The underlying error goes into `cause`.
 */
export class Fault extends Error {
  readonly code: string;
  readonly retry: Retry;

  constructor(code: string, message: string, options: { cause?: unknown; retry?: Retry } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'Fault';
    this.code = code;
    this.retry = options.retry ?? 'later';
  }
}

/** Wraps anything thrown as a Fault; a Fault passes through unchanged. */
export const asFault = (thrown: unknown, code: string, doing: string): Fault =>
  thrown instanceof Fault ? thrown : new Fault(code, `${doing}: ${messageOf(thrown)}`, { cause: thrown });

/** The message of anything thrown, with those of its causes. */
export const messageOf = (thrown: unknown): string => {
  // Error.isError, not instanceof: under Jest Node's own errors belong to another realm.
  if (!Error.isError(thrown)) return String(thrown);
  const cause = thrown.cause === undefined ? '' : ` (${messageOf(thrown.cause)})`;
  return `${thrown.message}${cause}`;
};
