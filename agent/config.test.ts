import { readFile } from 'node:fs/promises';
import { describe, expect, test } from '@jest/globals';
import { readConfig, showConfig } from './config.ts';

type Given = { argv?: string[]; env?: Record<string, string>; files?: Record<string, string> };

const url = 'control_plane_url = "https://op:8443"\n';
const read = ({ argv = [], env = {}, files = { '/etc/strato/config.toml': url } }: Given) => readConfig({ argv, env, readText: async (file) => files[file] });
const config = async (given: Given) => {
  const asked = await read(given);
  if (asked.is !== 'config') throw new Error(JSON.stringify(asked));
  return asked;
};
const problems = async (given: Given) => {
  const asked = await read(given);
  return asked.is === 'wrong' ? asked.problems : [];
};

describe('the configuration', () => {
  test('has defaults for all but the URL, and is frozen', async () => {
    const { config: it } = await config({});
    expect(it).toEqual({
      control_plane_url: 'https://op:8443', token_file: '/var/run/secrets/strato/token', state_dir: '/var/lib/strato', image_cache_dir: '/var/lib/strato/images',
      image_allowed_networks: [], image_cache_max: '50Gi', image_max_size: '1Ti', qemu_socket_dir: '/var/run/qemu', log_level: 'info', network_mode: 'user', enable_kvm: true, enable_hvf: true, guard_user_network: true, forward_address: '127.0.0.1',
      forward_ports: { min: 1024, max: 65535 }, unix_ids: { min: 200_000, max: 265_535 },
    });
    expect(Object.isFrozen(it)).toBe(true);
  });

  const file = { '/etc/strato/config.toml': `${url}state_dir = "/file"\n`, './config.toml': `${url}state_dir = "/here"\n`, '/other.toml': `${url}state_dir = "/other"\n` };
  const env = { STRATO_AGENT_STATE_DIR: '/env', PATH: '/bin' };
  test.each<[string, Given, string, string]>([
    ['a flag over all', { argv: ['--state-dir', '/flag'], env, files: file }, '/flag', 'flag --state-dir'],
    ['a flag with =', { argv: ['--state-dir=/flag'], files: file }, '/flag', 'flag --state-dir'],
    ['the environment over the file', { env, files: file }, '/env', 'environment STRATO_AGENT_STATE_DIR'],
    ['/etc over the current folder', { files: file }, '/file', '/etc/strato/config.toml'],
    ['the current folder', { files: { './config.toml': file['./config.toml'] } }, '/here', './config.toml'],
    ['--config', { argv: ['--config', '/other.toml'], files: file }, '/other', '/other.toml'],
    ['no file at all', { argv: ['--control-plane-url', 'wss://op'], files: {} }, '/var/lib/strato', 'default'],
  ])('takes %s', async (_, given, value, from) => {
    const asked = await config(given);
    expect([asked.config.state_dir, asked.where.state_dir]).toEqual([value, from]);
    expect(asked.config.image_cache_dir).toBe(`${value}/images`);
  });

  test.each<[string, Given, string]>([
    ['no URL', { files: {} }, 'control_plane_url: is required; give it in the file, as STRATO_AGENT_CONTROL_PLANE_URL or as --control-plane-url'],
    ['a URL without TLS', { argv: ['--control-plane-url', 'http://op'] }, 'control_plane_url = "http://op": must be an https:// or wss:// URL (flag --control-plane-url)'],
    ['a URL with a password', { argv: ['--control-plane-url', 'https://a:b@op'] }, 'control_plane_url = "https://a:b@op": must not hold a credential; that is what token_file is for (flag --control-plane-url)'],
    ['ovn', { argv: ['--network-mode', 'ovn'] }, 'network_mode = "ovn": ovn is not built yet; use user (flag --network-mode)'],
    ['another network mode', { env: { STRATO_AGENT_NETWORK_MODE: 'x' } }, 'network_mode = "x": must be user (environment STRATO_AGENT_NETWORK_MODE)'],
    ['a relative path', { argv: ['--state-dir', 'here'] }, 'state_dir = "here": must be an absolute path of letters, digits and . _ - / (flag --state-dir)'],
    ['a comma in a path', { argv: ['--qemu-socket-dir', '/a,b'] }, 'qemu_socket_dir = "/a,b": must be an absolute path of letters, digits and . _ - / (flag --qemu-socket-dir)'],
    ['a socket folder that is too long', { argv: ['--qemu-socket-dir', `/${'x'.repeat(59)}`] }, `qemu_socket_dir = "/${'x'.repeat(59)}": must be at most 59 bytes long, so that DIR/UID/tools.sock fits into the 107 bytes of a Unix socket path (flag --qemu-socket-dir)`],
    ['yes for true', { argv: ['--enable-kvm', 'yes'] }, 'enable_kvm = "yes": must be true or false (flag --enable-kvm)'],
    ['a falling range', { argv: ['--forward-ports', '2000-1000'] }, 'forward_ports = "2000-1000": must rise and lie within 1-65535 (flag --forward-ports)'],
    ['no range', { argv: ['--unix-ids', '5'] }, 'unix_ids = "5": must be FROM-TO, as in 1024-65535 (flag --unix-ids)'],
    ['ids of real users', { argv: ['--unix-ids', '0-5'] }, 'unix_ids = "0-5": must rise and lie within 1000-2147483647 (flag --unix-ids)'],
    ['no network', { argv: ['--image-allowed-networks', '10.0.0.0/8,here'] }, 'image_allowed_networks = "10.0.0.0/8,here": must be networks such as 10.0.0.0/8 or fd00::/8, with no bit set behind the prefix (flag --image-allowed-networks)'],
    ['a network with bits behind its prefix', { files: { './config.toml': `${url}image_allowed_networks = ["10.0.0.1/8"]` } }, 'image_allowed_networks = "10.0.0.1/8": must be networks such as 10.0.0.0/8 or fd00::/8, with no bit set behind the prefix (./config.toml)'],
    ['a size without a unit', { argv: ['--image-max-size', '500'] }, 'image_max_size = "500": must be a size in whole Mi, Gi or Ti, as in 50Gi (flag --image-max-size)'],
    ['a list of numbers', { files: { './config.toml': `${url}image_allowed_networks = [1]` } }, 'image_allowed_networks = [1]: must be a text or a list of texts (./config.toml)'],
    ['no address', { argv: ['--forward-address', 'localhost'] }, 'forward_address = "localhost": must be an IPv4 address (flag --forward-address)'],
    ['a log level', { argv: ['--log-level', 'loud'] }, 'log_level = "loud": must be trace, debug, info, warn or error (flag --log-level)'],
    ['an unknown flag', { argv: ['--node-name', 'x'] }, '--node-name: there is no such flag; see --help'],
    ['an argument', { argv: ['go'] }, 'go: there are no arguments, only flags'],
    ['a flag without value', { argv: ['--state-dir'] }, '--state-dir: needs a value'],
    ['an unknown variable', { env: { STRATO_AGENT_NODE_NAME: 'x' } }, 'STRATO_AGENT_NODE_NAME: there is no such key (environment)'],
    ['an unknown key', { files: { './config.toml': `${url}node_name = "x"` } }, 'node_name: there is no such key (./config.toml)'],
    ['a number in the file', { files: { './config.toml': `${url}state_dir = 5` } }, 'state_dir = 5: must be a text in quotes (./config.toml)'],
    ['a table in the file', { files: { './config.toml': `${url}[qemu]\na = 1` } }, 'qemu: there is no such key (./config.toml)'],
    ['no such file', { argv: ['--config', '/none'] }, '--config /none: there is no such file'],
  ])('refuses %s', async (_, given, problem) => {
    expect(await problems(given)).toContain(problem);
  });

  test('tells all that is wrong at once', async () => {
    expect(await problems({ argv: ['--nonsense', '--network-mode=ovn', '--unix-ids=x'], env: { STRATO_AGENT_FOO: '' }, files: { './config.toml': `${url}bar = 1` } })).toHaveLength(5);
    expect(await problems({ files: { './config.toml': 'a = [' } })).toEqual([expect.stringContaining('./config.toml:'), expect.stringContaining('control_plane_url: is required')]);
  });

  test('an enable_kvm without quotes is taken', async () => {
    expect((await config({ files: { './config.toml': `${url}enable_kvm = false` } })).config.enable_kvm).toBe(false);
  });

  test.each<[string, Given]>([
    ['a list in the file', { files: { './config.toml': `${url}image_allowed_networks = ["10.20.0.0/16", "fd00::/8"]` } }],
    ['a text in the file', { files: { './config.toml': `${url}image_allowed_networks = "10.20.0.0/16, fd00::/8"` } }],
    ['a flag', { argv: ['--image-allowed-networks', '10.20.0.0/16,fd00::/8'] }],
  ])('takes networks as %s', async (_, given) => {
    expect((await config(given)).config.image_allowed_networks).toEqual(['10.20.0.0/16', 'fd00::/8']);
  });

  test('shows what is in effect in a form that it reads again', async () => {
    const { config: it, where } = await config({ argv: ['--forward-ports', '3000-4000', '--image-allowed-networks=127.0.0.1', '--check-config'] });
    const shown = showConfig(it, where);
    expect(shown).toContain('forward_ports = "3000-4000"  # flag --forward-ports');
    expect((await config({ files: { './config.toml': shown } })).config).toEqual(it);
  });

  test('help names every key', async () => {
    const asked = await read({ argv: ['--help', '--nonsense'] });
    const text = asked.is === 'help' ? asked.text : '';
    expect(text).toContain('--forward-ports VALUE\n      Ports of the node that forwards may use, FROM-TO.\n      STRATO_AGENT_FORWARD_PORTS, forward_ports');
  });

  test('the example names every key and shows the defaults', async () => {
    const example = await readFile(new URL('../config.toml.example', import.meta.url), 'utf8');
    const bare = await config({ argv: ['--control-plane-url', 'https://strato-operator.strato-system.svc:8443'], files: {} });
    const filled = await config({ files: { './config.toml': example.replace(/^# ([a-z_]+ = )/gm, '$1') } });
    expect({ ...filled.config, control_plane_ca: undefined }).toEqual({ ...bare.config, control_plane_ca: undefined });
    expect(Object.entries(filled.where).filter(([, from]) => from === 'default')).toEqual([]);
  });
});
