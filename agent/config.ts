import { readFile } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { parse as parseToml } from 'smol-toml';
import { z } from 'zod';
import { messageOf } from '#crds/kit/fault.ts';
import { toMiB } from '#crds/kit/quantity.ts';
import { parseNetwork } from './image/web/addresses.ts';

// No comma and no blank: a path may come to stand in a QEMU option that is not JSON.
const path = () => z.string().regex(/^\/[A-Za-z0-9._/-]*$/, 'must be an absolute path of letters, digits and . _ - /');

/** A range `FROM-TO`, both ends included. */
const range = (least: number, most: number) =>
  z.string().regex(/^[0-9]{1,10}-[0-9]{1,10}$/, 'must be FROM-TO, as in 1024-65535').transform((text) => {
    const [min = 0, max = 0] = text.split('-').map(Number);
    return { min, max };
  }).refine(({ min, max }) => min >= least && max <= most && min <= max, `must rise and lie within ${least}-${most}`);

/** Networks in a text, separated by commas; in a file also a list of texts. */
const networks = () =>
  z.string().transform((text) => text.split(',').map((each) => each.trim()).filter((each) => each !== ''))
    .refine((all) => all.every((each) => parseNetwork(each) !== undefined), 'must be networks such as 10.0.0.0/8 or fd00::/8, with no bit set behind the prefix');

const size = () => z.string().refine((text) => !Number.isNaN(toMiB(text)), 'must be a size in whole Mi, Gi or Ti, as in 50Gi');

const url = z.string().refine((text) => URL.canParse(text) && ['https:', 'wss:'].includes(new URL(text).protocol), 'must be an https:// or wss:// URL')
  .refine((text) => !URL.canParse(text) || (new URL(text).username === '' && new URL(text).password === ''), 'must not hold a credential; that is what token_file is for');

// Bytes of a Unix socket path, without the zero at its end (sun_path, unix(7)).
const socketPathBytes = 107;
const uidAndFile = '/00000000-0000-4000-8000-000000000000/tools.sock'.length;

/** Every key: its form, and what it is for. The description is what `--help` shows. */
const keys = {
  control_plane_url: url.describe('Where the operator is, as https://HOST:PORT. Required.'),
  control_plane_ca: path().optional().describe("File with the CA (PEM) that the operator's certificate must come from. Unset: the system's CAs."),
  token_file: path().default('/var/run/secrets/strato/token').describe('File with the credential; read anew for each connection and when it changes.'),
  state_dir: path().default('/var/lib/strato').describe('Disks, ledger and everything else that must outlive the agent.'),
  image_cache_dir: path().optional().describe('Imported images. Best on the file system of state_dir (hard links). Unset: images/ in state_dir.'),
  image_allowed_networks: networks().default([])
    .describe('Networks beside the public ones that images may be fetched from, as in 10.20.0.0/16,fd00::/8. Unset: none, so neither private addresses nor this node.'),
  image_cache_max: size().default('50Gi').describe('How much imported images may take; beyond it those that no VM uses are removed, the least recently used first, and fetched again when they are needed.'),
  image_max_size: size().default('1Ti').describe('The largest disk that an image may hold, and the most that a compressed one may unpack to.'),
  qemu_socket_dir: path()
    .refine((text) => Buffer.byteLength(resolve(text)) + uidAndFile <= socketPathBytes, `must be at most ${socketPathBytes - uidAndFile} bytes long, so that DIR/UID/tools.sock fits into the ${socketPathBytes} bytes of a Unix socket path`)
    .default('/var/run/qemu').describe(`Sockets of the machines. At most ${socketPathBytes - uidAndFile} bytes: Unix socket paths are short.`),
  log_level: z.enum(['trace', 'debug', 'info', 'warn', 'error'], 'must be trace, debug, info, warn or error').default('info').describe('What is logged: trace, debug, info, warn or error.'),
  network_mode: z.string()
    .refine((text) => text !== 'ovn', 'ovn is not built yet; use user').refine((text) => text === 'user' || text === 'ovn', 'must be user')
    .transform((): 'user' => 'user').default('user').describe("How guests are connected: user (by the node's own address)."),
  enable_kvm: z.stringbool({ truthy: ['true'], falsy: ['false'], case: 'sensitive', error: 'must be true or false' }).default(true)
    .describe('On Linux: use KVM when a probe guest runs with it; else guests run by software emulation.'),
  enable_hvf: z.stringbool({ truthy: ['true'], falsy: ['false'], case: 'sensitive', error: 'must be true or false' }).default(true)
    .describe('On macOS: use Hypervisor.framework when a probe guest runs with it; else guests run by software emulation.'),
  guard_user_network: z.stringbool({ truthy: ['true'], falsy: ['false'], case: 'sensitive', error: 'must be true or false' }).default(true)
    .describe("Keep guests in user mode from the node's own, loopback and link-local addresses (nftables). false: they reach what the node reaches."),
  forward_address: z.string().refine(isIPv4, 'must be an IPv4 address').default('127.0.0.1').describe('Address of the node that forwards are bound to.'),
  forward_ports: range(1, 65535).default({ min: 1024, max: 65535 }).describe('Ports of the node that forwards may use, FROM-TO.'),
  unix_ids: range(1000, 2_147_483_647).default({ min: 200_000, max: 265_535 })
    .describe('Unix ids that machines run as, FROM-TO; one for each VM, used by nobody else on the node.'),
};

const schema = z.strictObject(keys);
type Key = keyof typeof keys;
const keyNames = Object.keys(keys).filter((key): key is Key => key in keys);
const flagOf = (key: string) => `--${key.replaceAll('_', '-')}`;
const environmentOf = (key: string) => `STRATO_AGENT_${key.toUpperCase()}`;

/** The configuration of an agent. Paths are absolute; ranges hold both ends. Frozen. */
export type Config = Readonly<Omit<z.output<typeof schema>, 'image_cache_dir'> & { image_cache_dir: string }>;

/** What the command line asks for. `where` tells where each key's value came from. */
export type Asked =
  | { is: 'help'; text: string }
  | { is: 'config'; config: Config; where: Readonly<Record<Key, string>>; checkOnly: boolean }
  | { is: 'wrong'; problems: readonly string[] };

/** What the configuration is made from. `readText` gives undefined when there is no such file. */
export type Sources = { argv: readonly string[]; env: Readonly<Record<string, string | undefined>>; readText: (file: string) => Promise<string | undefined> };

type Given = { value: string; where: string };

const files = ['/etc/strato/config.toml', './config.toml'] as const;

/** Reads flags, environment and file, in this order of precedence, and tells all that is wrong at once. */
export const readConfig = async ({ argv, env, readText }: Sources): Promise<Asked> => {
  const problems: string[] = [];
  const flags = readFlags(argv, problems);
  if (flags.help) return { is: 'help', text: helpText() };
  const given = new Map<Key, Given>();
  for (const [key, value] of await readFileKeys(flags.config, readText, problems)) given.set(key, value);
  for (const [name, value] of Object.entries(env)) {
    if (!name.startsWith('STRATO_AGENT_') || value === undefined) continue;
    const key = keyNames.find((each) => environmentOf(each) === name);
    if (key) given.set(key, { value, where: `environment ${name}` });
    else problems.push(`${name}: there is no such key (environment)`);
  }
  for (const [key, value] of flags.keys) given.set(key, { value, where: `flag ${flagOf(key)}` });

  const parsed = schema.safeParse(Object.fromEntries([...given].map(([key, { value }]) => [key, value])));
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const key = keyNames.find((each) => each === issue.path[0]);
      const from = key && given.get(key);
      problems.push(from ? `${key} = ${JSON.stringify(from.value)}: ${issue.message} (${from.where})` : `${key ?? ''}: is required; give it in the file, as ${environmentOf(key ?? '')} or as ${flagOf(key ?? '')}`);
    }
  }
  if (problems.length > 0 || !parsed.success) return { is: 'wrong', problems };
  const config: Config = Object.freeze({ ...parsed.data, image_cache_dir: parsed.data.image_cache_dir ?? `${parsed.data.state_dir}/images` });
  const where = Object.fromEntries(keyNames.map((key) => [key, given.get(key)?.where ?? 'default']));
  return { is: 'config', config, where: asWhere(where), checkOnly: flags.check };
};

/** Reads a file if it is there. */
export const readTextFile = async (file: string): Promise<string | undefined> =>
  readFile(file, 'utf8').catch((thrown: unknown) => {
    if (Error.isError(thrown) && 'code' in thrown && thrown.code === 'ENOENT') return undefined;
    throw thrown;
  });

/** The effective configuration as TOML, each line with where it came from. It holds no secret: credentials are in files. */
export const showConfig = (config: Config, where: Readonly<Record<string, string>>): string =>
  keyNames.map((key) => {
    const value = config[key];
    const text = value === undefined ? '# unset' : typeof value === 'object' && 'min' in value ? JSON.stringify(`${value.min}-${value.max}`) : JSON.stringify(value);
    return `${value === undefined ? '# ' : ''}${key} = ${text}  # ${where[key] ?? 'default'}`;
  }).join('\n');

const asWhere = (where: Record<string, string>): Record<Key, string> =>
  z.record(z.enum(keyNames), z.string()).parse(where);

const readFlags = (argv: readonly string[], problems: string[]) => {
  const keyFlags = new Map<Key, string>();
  const none = { help: false, check: false, config: undefined, keys: keyFlags };
  // Not strict: an unknown flag is one problem among others, not the end of the search.
  const { tokens } = parseArgs({
    args: [...argv], strict: false, allowPositionals: true, tokens: true,
    options: {
      help: { type: 'boolean' }, 'check-config': { type: 'boolean' }, config: { type: 'string' },
      ...Object.fromEntries(keyNames.map((key) => [flagOf(key).slice(2), { type: 'string' as const }])),
    },
  });
  let flags: { help: boolean; check: boolean; config: string | undefined; keys: Map<Key, string> } = none;
  for (const token of tokens) {
    if (token.kind !== 'option') {
      if (token.kind === 'positional') problems.push(`${token.value}: there are no arguments, only flags`);
      continue;
    }
    const key = keyNames.find((each) => flagOf(each) === token.rawName);
    if (token.name === 'help') flags = { ...flags, help: true };
    else if (token.name === 'check-config') flags = { ...flags, check: true };
    else if (!key && token.name !== 'config') problems.push(`${token.rawName}: there is no such flag; see --help`);
    else if (token.value === undefined) problems.push(`${token.rawName}: needs a value`);
    else if (key) keyFlags.set(key, token.value);
    else flags = { ...flags, config: token.value };
  }
  return flags;
};

const readFileKeys = async (chosen: string | undefined, readText: Sources['readText'], problems: string[]): Promise<[Key, Given][]> => {
  const from = chosen === undefined ? files : [chosen];
  for (const file of from) {
    let table: Record<string, unknown>;
    try {
      const text = await readText(file);
      if (text === undefined) continue;
      table = parseToml(text);
    } catch (thrown) {
      problems.push(`${file}: ${messageOf(thrown).split('\n', 1)[0]}`);
      return [];
    }
    return Object.entries(table).flatMap(([name, value]): [Key, Given][] => {
      const key = keyNames.find((each) => each === name);
      if (!key) problems.push(`${name}: there is no such key (${file})`);
      else if (key === 'image_allowed_networks' && Array.isArray(value) && value.every((each) => typeof each === 'string')) return [[key, { value: value.join(','), where: file }]];
      else if (typeof value !== 'string' && typeof value !== 'boolean') problems.push(`${name} = ${JSON.stringify(value)}: must be a text${orElse[key] ?? ' in quotes'} (${file})`);
      else return [[key, { value: String(value), where: file }]];
      return [];
    });
  }
  if (chosen !== undefined) problems.push(`--config ${chosen}: there is no such file`);
  return [];
};

/** What the value of a key in a file may be beside a text. */
const orElse: Partial<Record<Key, string>> = {
  enable_kvm: ' or true or false', enable_hvf: ' or true or false', guard_user_network: ' or true or false', image_allowed_networks: ' or a list of texts',
};

const helpText = (): string => [
  'strato-agent: runs the virtual machines of one node.',
  '',
  `Each key is looked for as a flag, then in the environment, then in ${files.join(' or ')}.`,
  '',
  '  --config FILE     read this file instead',
  '  --check-config    check everything, show what is in effect, and end (0: fine, 1: not)',
  '  --help            this text',
  '',
  ...keyNames.flatMap((key) => [`  ${flagOf(key)} VALUE`, `      ${keys[key].description ?? ''}`, `      ${environmentOf(key)}, ${key}`]),
].join('\n');
