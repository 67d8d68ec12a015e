import { posix } from 'node:path';

/** The rooms, and which others each may import. */
export const rooms: Readonly<Record<string, readonly string[]>> = {
  crds: [], permify: ['crds'], operator: ['crds'], agent: ['crds'], console: ['crds', 'permify'], hack: ['crds', 'permify', 'operator', 'agent', 'console'],
};

// What decides, and what says what is true: values in, values out.
const pure = /(^|\/)(decide|place|status|plan\w*|args|qemu\/events|judge|sync|report|machine|places)\.ts$/;
// Packages that only compute.
const computing = new Set(['zod']);
// Packages that belong to one place.
const homes: Readonly<Record<string, RegExp>> = {
  '@kubernetes/client-node': /^operator\/kube\//,
  ws: /^(agent\/link|operator\/fleet|hack\/bed)\//,
  'smol-toml': /^(agent\/config\.ts|hack\/)/,
  'prom-client': /^operator\/(http|metrics)\.ts$/,
};
// Suites, beds and fakes are test code that lies beside what it tests.
const ofTests = /(\.test|(^|\/)(contract|bed|fake\w*|testguest|testweb))\.ts$/;

/** Whether a file is a test, or help for tests. */
export const isTest = (file: string): boolean => ofTests.test(file);

/** One import: the file, from the root of the repository, and what it names. */
export type Import = { file: string; names: string };

/** Every import of a file, static or dynamic, of values or types. Pure. */
export const importsOf = (file: string, text: string): Import[] =>
  [...text.matchAll(/(?:^|\n)(?:import|export)\s[^;'"]*?from\s+'([^']+)'|import\s+'([^']+)'|import\('([^']+)'\)/g)].map(([, from, bare, dynamic]) => ({ file, names: from ?? bare ?? dynamic ?? '' }));

/** What is wrong with an import, or undefined. Pure. */
export const wrongWith = ({ file, names }: Import): string | undefined => {
  const room = file.split('/')[0] ?? '';
  const allowed = rooms[room];
  if (!allowed) return undefined;
  if (names.startsWith('.')) {
    const target = posix.normalize(posix.join(posix.dirname(file), names));
    return target.startsWith(`${room}/`) ? undefined : `leaves its room by a path; say #room/...`;
  }
  if (names.startsWith('#')) {
    const other = names.slice(1).split('/')[0] ?? '';
    if (other === room || allowed.includes(other) || (other === 'hack' && ofTests.test(file))) return undefined;
    return `${room} may not import ${other}`;
  }
  const core = names.startsWith('node:');
  if (room === 'crds' && !ofTests.test(file) && !core && names !== 'zod') return 'crds imports nothing but zod and Node';
  if (pure.test(file) && !computing.has(names) && names !== 'node:os' && names !== 'node:path' && room !== 'hack') return 'what decides imports no package and does nothing';
  const home = homes[names];
  return home && !home.test(file) && !ofTests.test(file) ? `${names} is used in ${home.source} alone` : undefined;
};
