import { messageOf } from '#crds/kit/fault.ts';
import { KubeFault } from './kube.ts';

/** The longest watch line that is read. etcd holds objects of 1.5 MB at most. */
const maxLineChars = 16 * 1024 * 1024;

/**
 * The JSON values of a stream with one value a line (a watch). A half line at the end, a line that is not JSON or is
 * absurdly long throws StreamCut: the stream can't be trusted any more. Source: Kubernetes API concepts, "Efficient detection of changes".
 */
export async function* jsonLines(chunks: AsyncIterable<Uint8Array>, doing: string): AsyncGenerator<unknown> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const cut = (message: string, cause?: unknown): KubeFault => new KubeFault(doing, { status: 0, reason: 'StreamCut', message, cause });
  const parsed = (line: string): unknown => {
    try {
      return JSON.parse(line);
    } catch {
      throw cut('a line of the stream is not JSON');
    }
  };
  let rest: string[] = [];
  let restChars = 0;
  try {
    for await (const chunk of chunks) {
      const lines = decoder.decode(chunk, { stream: true }).split('\n');
      const last = lines.pop() ?? '';
      for (const line of lines) {
        const whole = rest.length === 0 ? line : rest.join('') + line;
        rest = [];
        restChars = 0;
        if (whole.trim() !== '') yield parsed(whole);
      }
      if (last !== '') rest.push(last);
      restChars += last.length;
      if (restChars > maxLineChars) throw cut(`a line of the stream is longer than ${maxLineChars} characters`);
    }
  } catch (thrown) {
    throw thrown instanceof KubeFault ? thrown : cut(messageOf(thrown), thrown);
  }
  if (rest.join('').trim() !== '') throw cut('the stream ended within a line');
}
