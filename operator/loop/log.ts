/** What the operator needs of a logger: fields first, then a constant sentence. A pino logger fits. */
export type Log = Record<'debug' | 'info' | 'warn' | 'error', (fields: Record<string, unknown>, sentence: string) => void>;

/** A logger that says nothing. */
export const quiet: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
