import { once } from 'node:events';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { LookupFunction } from 'node:net';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { type Guard, parseSource, shown } from './guard.ts';

/** Bounds of a request. `connectMs` covers everything up to the header of each response. */
export type OpenLimits = { connectMs: number; maxRedirects: number };

/** What is asked for: `accept` are the statuses that are an answer, all others are faults. */
export type Asked = { url: string; headers?: Readonly<Record<string, string>>; accept: readonly number[] };

const redirects = [301, 302, 303, 307, 308];

/**
 * Sends a GET and follows redirects by hand: each hop passes the guard and goes to the addresses that it gave, and to no
 * others. The signal ends the body, too; the caller destroys the response. Faults: SourceRefused, DownloadFailed.
 * Source: RFC 9110.
 */
export const openUrl = async (asked: Asked, guard: Guard, limits: OpenLimits, signal: AbortSignal): Promise<IncomingMessage> => {
  const start = parseSource(asked.url);
  let url = start;
  for (let hops = 0; hops <= limits.maxRedirects; hops += 1) {
    const response = await get(url, asked.headers ?? {}, guard, limits.connectMs, signal).catch((thrown: unknown) => {
      throw hops > 0 ? asRedirect(start, thrown) : thrown;
    });
    const status = response.statusCode ?? 0;
    if (asked.accept.includes(status)) return response;
    response.destroy();
    const location = response.headers.location;
    if (!redirects.includes(status) || location === undefined) throw failed(url, `HTTP ${status} ${response.statusMessage ?? ''}`.trim());
    url = redirected(url, location);
  }
  throw failed(start, `more than ${limits.maxRedirects} redirects`);
};

/** The fault of a download that may work later. */
export const failed = (url: URL, why: string, cause?: unknown): Fault => new Fault('DownloadFailed', `fetching ${shown(url)}: ${why}`, { cause });

const redirected = (from: URL, location: string): URL => {
  const to = URL.parse(location, from.href);
  if (!to) throw failed(from, 'it redirects to something that is no URL');
  try {
    return parseSource(to.href);
  } catch (thrown) {
    throw asRedirect(from, thrown);
  }
};

const asRedirect = (from: URL, thrown: unknown): unknown =>
  thrown instanceof Fault && thrown.code === 'SourceRefused'
    ? new Fault('SourceRefused', `fetching ${shown(from)}: it redirects to where nothing is fetched from: ${thrown.message}`, { cause: thrown, retry: 'never' })
    : thrown;

/** Answers with the addresses that were judged, whatever a name server would say now. */
const pinned = (addresses: readonly string[]): LookupFunction => (_host, options, answer) => {
  const all = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
  const [first = { address: '', family: 4 }] = all;
  if (options.all === true) answer(null, all);
  else answer(null, first.address, first.family);
};

const get = async (url: URL, headers: Readonly<Record<string, string>>, guard: Guard, connectMs: number, signal: AbortSignal): Promise<IncomingMessage> => {
  const late = AbortSignal.timeout(connectMs);
  const early = AbortSignal.any([signal, late]);
  let request: ReturnType<typeof httpRequest> | undefined;
  try {
    const addresses = await guard(url, early);
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    // No agent: a connection of its own that ends with the response. Certificates are checked against the name in the URL.
    request = send(url, { agent: false, signal, lookup: pinned(addresses), headers: { accept: '*/*', 'accept-encoding': 'identity', 'user-agent': 'strato-agent', ...headers } });
    request.on('error', () => {});
    const answered = once(request, 'response', { signal: early });
    request.end();
    const [response]: IncomingMessage[] = await answered;
    if (!response) throw failed(url, 'no response');
    response.on('error', () => {});
    return response;
  } catch (thrown) {
    request?.destroy();
    signal.throwIfAborted();
    if (thrown instanceof Fault) throw thrown;
    throw failed(url, late.aborted ? `no answer within ${connectMs / 1000} s` : said(thrown), thrown);
  }
};

/** A connection that was tried to several addresses fails with an error for each, and says nothing itself. */
const said = (thrown: unknown): string =>
  Error.isError(thrown) && 'errors' in thrown && Array.isArray(thrown.errors) ? [...new Set(thrown.errors.map(messageOf))].join('; ') : messageOf(thrown);
