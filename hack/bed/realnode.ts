import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, open, readdir, readFile, readlink, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify as stringifyToml } from 'smol-toml';
import { z } from 'zod';
import { readBootId } from '#agent/host/bootid.ts';
import { type Paths, paths as pathsOf } from '#agent/host/paths.ts';
import { makeQemu } from '#agent/hypervisor/qemu/driver.ts';
import { openCgroups } from '#agent/hypervisor/qemu/cgroup.ts';
import { quiet } from '#crds/kit/log.ts';
import type { Cluster } from './cluster.ts';
import { until } from './until.ts';
import { worker } from './worker.ts';

/** A QEMU as the node's process table shows it, read independently of the agent. */
export type QemuProcess = { pid: number; uid: string; command: readonly string[] };

const fields = z.looseObject({ msg: z.string(), uid: z.string().optional(), state: z.string().optional() });

// A field of the same name comes after pino's own.
const parseLine = (text: string) => ({ ...fields.parse(JSON.parse(text)), time: Number(/"time":(\d+)/.exec(text)?.[1]) });

/** One line of an agent's log; `time` in milliseconds since 1970. */
export type AgentLine = ReturnType<typeof parseLine>;

/** A node of its own folder: the real agent as a process, with real QEMU below. */
export type RealNode = AsyncDisposable & {
  paths: Paths;
  /** The Unix id of the tools that the agent runs on images. */
  toolsId: number;
  /** Starts the agent, or another one beside it; `joined` waits for its session. */
  start: () => Promise<ChildProcess>;
  /** The agent that was started last. */
  agent: () => ChildProcess;
  joined: () => Promise<void>;
  /** Ends the agent by a signal and waits for its exit. */
  end: (signal: 'SIGKILL' | 'SIGTERM') => Promise<void>;
  /** Puts another credential into the agent's token file, as a kubelet does in a pod. */
  giveToken: (token: string) => Promise<void>;
  logFile: string;
  /** The agents' log, of all starts, as text and line by line. */
  log: () => Promise<string>;
  lines: () => Promise<AgentLine[]>;
  qemus: () => Promise<QemuProcess[]>;
  serial: (uid: string) => Promise<string>;
  /** What is there of a VM: files, sockets, cgroups, processes. Empty when it left nothing. */
  traces: (uid: string) => Promise<string[]>;
};

/**
 * What a test may change. `stateDir`: an empty folder of the test's own, for instance on a disk of its own. `tokenSeconds`: how long the agent's
 * credential lasts, an hour when unset. `under`: what the agent's command line is put behind; `env`: added to its environment; `build`: the checkout
 * whose agent is started, this one when unset. The last three may be changed between two starts.
 */
export type RealNodeOptions = { stateDir?: string; tokenSeconds?: number; under?: string[]; env?: Record<string, string>; build?: string };

const root = join(import.meta.dirname, '..', '..');
// Processes start slowly where every core is busy.
const waitMs = 120_000;
const unixIds = { min: 300_000 + worker * 1_000, max: 300_999 + worker * 1_000 };

/** Makes a node for tests and starts its agent; dispose it at the end, it ends every guest too. Needs root. */
export const startRealNode = async (cluster: Pick<Cluster, 'authority' | 'token'>, url: string, name = 'node-1', options: RealNodeOptions = {}): Promise<RealNode> => {
  const folder = await mkdtemp(join(tmpdir(), 'strato-node-'));
  await chmod(folder, 0o755);
  const stateDir = options.stateDir ?? join(folder, 'state');
  const folders = { stateDir, imageCacheDir: join(stateDir, 'images'), socketDir: join(folder, 's') };
  const paths = pathsOf(folders);
  const files = { token: join(folder, 'token'), config: join(folder, 'config.toml'), log: join(folder, 'agent.log') };
  await mkdir(stateDir, { mode: 0o700, recursive: true });
  await writeFile(files.token, await cluster.token({ node: name, seconds: options.tokenSeconds ?? 3600 }), { mode: 0o600 });
  await writeFile(files.config, stringifyToml({
    control_plane_url: url, control_plane_ca: cluster.authority, token_file: files.token, log_level: 'debug',
    state_dir: folders.stateDir, image_cache_dir: folders.imageCacheDir, qemu_socket_dir: folders.socketDir,
    // Of agents that run beside it, each has other ones.
    unix_ids: `${unixIds.min}-${unixIds.max}`,
    // Of the test's web server.
    image_allowed_networks: ['127.0.0.1/32'],
  }));
  const log = () => readFile(files.log, 'utf8').catch(() => '');
  // What is no line of pino's is a word of Node's own.
  const lines = async () => (await log()).split('\n').flatMap((text) => (text.startsWith('{') && text.endsWith('}') ? [parseLine(text)] : []));
  let agent: ChildProcess | undefined;
  let joinedBefore = 0;
  const joins = async (): Promise<number> => (await log()).split('"joined the operator"').length - 1;
  const start = async (): Promise<ChildProcess> => {
    joinedBefore = await joins();
    const out = await open(files.log, 'a');
    try {
      const [command, ...args] = [...(options.under ?? []), process.execPath, join(options.build ?? root, 'agent', 'main.ts'), '--config', files.config];
      const child = spawn(command, args, {
        stdio: ['ignore', out.fd, out.fd], env: { PATH: process.env.PATH, NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'], ...options.env },
      });
      await once(child, 'spawn');
      agent = child;
      return child;
    } finally {
      await out.close();
    }
  };
  const running = (): ChildProcess => {
    if (!agent) throw new Error('no agent was started');
    return agent;
  };
  const end = async (signal: 'SIGKILL' | 'SIGTERM'): Promise<void> => {
    const child = running();
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, 'exit', { signal: AbortSignal.timeout(waitMs) });
    child.kill(signal);
    await exit;
  };
  const traces = async (uid: string): Promise<string[]> => {
    const there = [paths.vm(uid), paths.sockets(uid), join(paths.ledger, `${uid}.json`)].filter((file) => existsSync(file));
    const pids = (await (await openCgroups()).pids(uid)).map((pid) => `pid ${pid}`);
    return [...there, ...pids, ...(await qemusBelow(paths.vms)).filter((each) => each.uid === uid).map(({ pid }) => `qemu ${pid}`)];
  };
  await start();
  return {
    paths, start, end, log, lines, traces, logFile: files.log, toolsId: unixIds.max,
    giveToken: async (token) => {
      await writeFile(`${files.token}.new`, token, { mode: 0o600 });
      await rename(`${files.token}.new`, files.token);
    },
    agent: running,
    joined: async () => void (await until('the agent to join', async () => (await joins()) > joinedBefore, waitMs)),
    qemus: () => qemusBelow(paths.vms),
    serial: (uid) => readFile(paths.serialLog(uid), 'utf8').catch(() => ''),
    [Symbol.asyncDispose]: async () => {
      await end('SIGKILL');
      await endGuests(paths);
      await rm(folder, { recursive: true, force: true });
    },
  };
};

/** The working directory of a machine's processes is that of its VM. */
const qemusBelow = async (vms: string): Promise<QemuProcess[]> => {
  const found: QemuProcess[] = [];
  for (const pid of (await readdir('/proc')).filter((each) => /^\d+$/.test(each)).map(Number)) {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (!cwd.startsWith(`${vms}/`)) continue;
    const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0').slice(0, -1);
    if (/(^|\/)qemu-system-[^/]*$/.test(command[0] ?? '')) found.push({ pid, uid: cwd.slice(vms.length + 1), command });
  }
  return found;
};

const endGuests = async (paths: Paths): Promise<void> => {
  const ending = new AbortController();
  try {
    const hypervisor = await makeQemu({ paths, bootId: await readBootId(), accelerate: false, log: quiet, onProved: () => {} }, ending.signal);
    for (const uid of await readdir(paths.vms).catch(() => [])) {
      await hypervisor.kill(uid, AbortSignal.timeout(waitMs));
      await hypervisor.forget(uid, AbortSignal.timeout(waitMs));
    }
  } finally {
    ending.abort();
  }
};
