import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** One machine of the loop: the whole command line of its launcher, and the directory of its run. */
export type Looped = { argv: readonly string[]; run: string };

// Once QEMU has answered the launcher's first command there are two lines, and it hears what comes next.
const cont = `
for run in "$@"; do
  while ! { read -r _ && read -r _; } 2>/dev/null <"$run/events"; do sleep 0.005; done
  echo '{"execute":"cont"}' >"$run/qmp.in"
done`;

/** A POSIX word that stands for exactly this text. Pure. */
export const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The script of a person with a shell: starts every launcher in the background, then has each guest run. Pure. */
export const loopScript = (machines: readonly Looped[]): string => [
  ...machines.map(({ argv, run }) => `${argv.map(quoted).join(' ')} </dev/null >/dev/null 2>>${quoted(`${run}/stderr`)} &`),
  `set -- ${machines.map(({ run }) => quoted(run)).join(' ')}`,
  cont.trim(),
].join('\n');

/** Runs the loop; resolves when the last `cont` was said. The machines go on. */
export const runLoop = async (machines: readonly Looped[], signal: AbortSignal): Promise<void> => {
  const child = spawn('/bin/sh', [], { stdio: ['pipe', 'ignore', 'inherit'], detached: true, signal });
  child.stdin?.end(loopScript(machines));
  const [code]: unknown[] = await once(child, 'exit');
  if (code !== 0) throw new Error(`the shell loop ended with ${code}`);
};
