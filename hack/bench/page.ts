import type { Figure } from './figure.ts';

const begin = '<!-- results: npm run bench -- NAME --write -->';
const head = ['| bench | figure | measured | goal | met | where and when |', '|---|---|---|---|---|---|'];

/** The page with the last results of the benches in it; results of other benches stay. Pure. */
export const withResults = (page: string, figures: readonly Figure[], where: string): string => {
  const [text = '', table = ''] = page.split(begin);
  const benches = new Set(figures.map(({ bench }) => bench));
  const kept = table.split('\n').filter((line) => line.startsWith('| ') && !head.includes(line) && !benches.has(line.split('|')[1]?.trim() ?? ''));
  const fresh = figures.map(({ bench, figure, value, unit, goal, met }) => `| ${bench} | ${figure} | ${`${value} ${unit}`.trim()} | ${goal} | ${met ? 'yes' : 'no'} | ${where} |`);
  return `${text.trimEnd()}\n\n${begin}\n\n${[...head, ...kept, ...fresh].join('\n')}\n`;
};
