import { Fault } from '#crds/kit/fault.ts';
import { type Guard, parseSource, shown } from './guard.ts';
import { failed, openUrl, type OpenLimits } from './open.ts';

/** One entry of a list: a checksum as `sha256:HEX` or `sha512:HEX`, and the name as it stands there. */
export type Entry = { name: string; checksum: string };

// GNU: `HEX  name`, `HEX *name`, and with a backslash in front when the name holds escapes. BSD and OpenSSL: `SHA256 (name) = HEX`.
// Source: coreutils, src/cksum.c (split_3). No two parts that follow each other take the same character: else a line of blanks takes minutes.
const gnu = /^(\\?)([0-9a-fA-F]{64}|[0-9a-fA-F]{128})[ \t][ \t*]*([^ \t*].*)$/;
const bsd = /^(\\?)SHA(?:2-)?(256|512) ?\((.+)\) ?= ?([0-9a-fA-F]+)$/;
const sizes: Readonly<Record<number, 'sha256' | 'sha512'>> = { 64: 'sha256', 128: 'sha512' };

/** The SHA-256 and SHA-512 entries of a list of checksums; other lines (comments, signatures, other hashes) are passed over. Pure. */
export const parseChecksums = (text: string): Entry[] =>
  text.split('\n').flatMap((line) => {
    const plain = line.replace(/\r$/, '');
    const [, escaped, hex, name] = gnu.exec(plain) ?? [];
    if (hex !== undefined && name !== undefined) return entryOf(hex, name, escaped);
    const [, slash, bits, named, sum] = bsd.exec(plain) ?? [];
    return named !== undefined && sum !== undefined && sum.length * 4 === Number(bits) ? entryOf(sum, named, slash) : [];
  });

const entryOf = (hex: string, name: string, escaped: string | undefined): Entry[] => {
  const kind = sizes[hex.length];
  return kind === undefined ? [] : [{ name: escaped === '\\' ? name.replace(/\\(.)/g, (_, each) => (each === 'n' ? '\n' : each)) : name, checksum: `${kind}:${hex.toLowerCase()}` }];
};

/** The name that a list would have for the file at a URL: what is behind the last slash; empty when there is nothing. Pure. */
export const fileNameOf = (url: URL): string => {
  const last = url.pathname.slice(url.pathname.lastIndexOf('/') + 1);
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
};

/**
 * The checksum of a file by its name; of two kinds the longer one. A name with folders in front of it counts when none is
 * the very name. Pure. Fault: ChecksumMissing (later), which says what is wrong with the list.
 */
export const checksumOf = (entries: readonly Entry[], name: string, where: string): string => {
  const missing = (why: string): never => {
    throw new Fault('ChecksumMissing', `${where} ${why}`);
  };
  if (entries.length === 0) return missing('is no list of SHA-256 or SHA-512 checksums');
  const exact = entries.filter((each) => each.name === name);
  const found = exact.length > 0 ? exact : entries.filter((each) => each.name.endsWith(`/${name}`));
  if (found.length === 0) return missing(`has ${entries.length} checksums and none of ${JSON.stringify(name)}`);
  const longest = Math.max(...found.map(({ checksum }) => checksum.length));
  const [first = '', ...others] = new Set(found.flatMap(({ checksum }) => (checksum.length === longest ? [checksum] : [])));
  return others.length === 0 ? first : missing(`has ${others.length + 1} different checksums of ${JSON.stringify(name)}`);
};

/** Bounds of the download of a list. */
export type ListLimits = OpenLimits & { idleMs: number };

const maxListBytes = 1024 * 1024;

/**
 * Fetches a list of checksums and gives that of the file at `url`. Faults: SourceRefused, DownloadFailed (also a list above
 * 1 MiB), ChecksumMissing.
 */
export const fetchChecksum = async (listUrl: string, url: string, guard: Guard, limits: ListLimits, signal: AbortSignal): Promise<string> => {
  const where = parseSource(listUrl);
  const whole = AbortSignal.any([signal, AbortSignal.timeout(limits.connectMs + limits.idleMs)]);
  try {
    const response = await openUrl({ url: listUrl, accept: [200] }, guard, limits, whole);
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of response) {
      if (!Buffer.isBuffer(part)) continue;
      bytes += part.byteLength;
      if (bytes > maxListBytes) throw failed(where, `a list of checksums of more than ${maxListBytes} bytes is not read`);
      parts.push(part);
    }
    return checksumOf(parseChecksums(Buffer.concat(parts).toString('utf8')), fileNameOf(parseSource(url)), shown(where));
  } catch (thrown) {
    signal.throwIfAborted();
    if (thrown instanceof Fault) throw thrown;
    throw failed(where, whole.aborted ? 'the list of checksums did not arrive in time' : Error.isError(thrown) ? thrown.message : String(thrown), thrown);
  }
};
