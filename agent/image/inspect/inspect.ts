import { foreignFormat } from './foreign.ts';
import { headBytes, parseQcow2 } from './qcow2.ts';
import { refused } from './refused.ts';

/** The parts of a fetched file that a verdict needs: at most its first `headBytes` and its last `tailBytes`. */
export type Sample = { head: Uint8Array; tail: Uint8Array; fileBytes: number };

/** A file that a QEMU tool may open, as the format that it was declared to be. */
export type Verdict = { format: 'qcow2' | 'raw'; virtualSizeBytes: number };

/** The largest disk that an image may hold, whatever is configured: 16 TiB. */
export const absurdBytes = 16 * 1024 ** 4;

/** How much of the end of a file a verdict needs. */
export const tailBytes = 512;

export { headBytes };

/**
 * Decides whether a fetched file may be opened by a QEMU tool at all. Pure; bytes are hostile. The format is the one
 * that the user declared and is never guessed: a raw file that carries another format's signature is refused, since
 * a later reader might guess. Fault: ImageRefused, and no other.
 */
export const inspect = (sample: Sample, format: 'qcow2' | 'raw', maxVirtualBytes: number): Verdict => {
  if (sample.fileBytes === 0) return refused('the file is empty');
  const foreign = foreignFormat(sample.head, sample.tail);
  const virtualSizeBytes = format === 'qcow2' ? qcow2Size(sample, foreign) : rawSize(sample, foreign);
  const most = Math.min(maxVirtualBytes, absurdBytes);
  if (virtualSizeBytes === 0) return refused('it holds a disk of no size');
  if (virtualSizeBytes > most) return refused(`it holds a disk of ${virtualSizeBytes} bytes; this node takes ${most} at most`);
  return { format, virtualSizeBytes };
};

const qcow2Size = (sample: Sample, foreign: string | undefined): number => {
  if (foreign !== 'qcow2') return refused(`its format is said to be qcow2, but ${foreign === undefined ? 'it does not begin with the magic bytes of qcow2' : `it is ${foreign}`}`);
  const header = parseQcow2(sample.head, sample.fileBytes);
  if (header.backing !== undefined) return refused(`it needs a backing file (${JSON.stringify(header.backing)}); flatten it with \`qemu-img convert\` first`);
  return header.virtualSizeBytes;
};

const rawSize = (sample: Sample, foreign: string | undefined): number =>
  foreign === undefined ? Math.ceil(sample.fileBytes / 512) * 512 : refused(`its format is said to be raw, but it is ${foreign}`);
