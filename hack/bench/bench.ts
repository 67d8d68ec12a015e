// npm run bench -- NAME... [--write]
import { readFile, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf } from '#crds/kit/fault.ts';
import { benchBurst } from './burst.ts';
import { benchCrash } from './crash.ts';
import type { Figure } from './figure.ts';
import { benchImage } from './image.ts';
import { benchMemory } from './memory.ts';
import { withResults } from './page.ts';
import { benchStart } from './start.ts';
import { benchUp } from './up.ts';

/** Every bench, by its name. It tells what it does on stderr. */
const benches = {
  start: benchStart, burst: benchBurst, memory: benchMemory, image: benchImage, crash: benchCrash, up: benchUp,
} satisfies Record<string, (tell: (doing: string) => void) => Promise<Figure[]>>;
const isBench = (name: string): name is keyof typeof benches => Object.hasOwn(benches, name);

const page = join(import.meta.dirname, '..', '..', 'docs', 'performance.md');
const usage = `usage: npm run bench -- NAME... [--write]
  NAME     ${Object.keys(benches).join(', ')}
  --write  keep the results in docs/performance.md
Prints one JSON line for each figure. Needs root and what ./hack/up has installed; ends with 1 when a goal is not met.`;

const main = async (): Promise<boolean> => {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { write: { type: 'boolean' }, help: { type: 'boolean' } } });
  if (values.help) {
    console.log(usage);
    return true;
  }
  const wrong = positionals.filter((name) => !isBench(name));
  if (positionals.length === 0 || wrong.length > 0) throw new Error(wrong.length > 0 ? `there is no bench ${wrong.join(', ')}\n${usage}` : usage);
  const figures: Figure[] = [];
  for (const name of positionals.filter(isBench)) {
    for (const figure of await benches[name]((doing) => console.error(doing))) {
      console.log(JSON.stringify(figure));
      figures.push(figure);
    }
  }
  if (values.write) {
    const [processor] = cpus();
    const where = `${cpus().length} x ${processor?.model.trim() ?? 'unknown'}, ${new Date().toISOString().slice(0, 10)}`;
    await writeFile(page, withResults(await readFile(page, 'utf8'), figures, where));
  }
  return figures.every(({ met }) => met);
};

main().then(
  (met) => { process.exitCode = met ? 0 : 1; },
  (error: unknown) => {
    console.error(messageOf(error));
    process.exitCode = 2;
  },
);
