/** What we need of a logger: fields first, then a constant sentence. A pino logger fits. */
export type Log = Record<'debug' | 'info' | 'warn' | 'error', (fields: object, sentence: string) => void>;

/** A logger that says nothing. */
export const quiet: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
