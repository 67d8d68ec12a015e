import './host/threads.ts';
import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { type Logger, pino } from 'pino';
import { systemClock } from '#crds/kit/clock.ts';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import { toMiB } from '#crds/kit/quantity.ts';
import { type Agent, startAgent } from './agent.ts';
import { type Config, readConfig, readTextFile, showConfig } from './config.ts';
import { readBootId } from './host/bootid.ts';
import { readNodeIdentity } from './host/facts.ts';
import { hostMs } from './host/hostms.ts';
import { type Paths, paths } from './host/paths.ts';
import { platform } from './host/platform.ts';
import { takeStateLock } from './host/statelock.ts';
import { readToken } from './host/token.ts';
import { hypervisors } from './hypervisor/registry.ts';
import { makeGuests } from './guest/guests.ts';
import { cacheOf, limitsFor } from './image/limits.ts';
import { makeImageStore } from './image/local.ts';
import { makeGuard } from './image/web/guard.ts';
import { makeDial } from './link/dial.ts';
import { networks } from './network/registry.ts';
import { startGuard, unguarded } from './network/user/guard.ts';
import { makeFileStorage } from './storage/files.ts';
import { makeFileShelf, readAgentId, writeAgentId } from './vm/shelf.ts';

/** The agent's process: reads its configuration once, takes its folders, runs, and ends on SIGTERM without touching a guest. */
const main = async (): Promise<void> => {
  const asked = await readConfig({ argv: process.argv.slice(2), env: process.env, readText: readTextFile });
  switch (asked.is) {
    case 'help':
      process.stdout.write(`${asked.text}\n`);
      return;
    case 'wrong':
      throw new Fault('BadConfig', asked.problems.join('\n'), { retry: 'never' });
    case 'config':
      if (asked.checkOnly) process.stdout.write(`${showConfig(asked.config, asked.where)}\n`);
      else await run(asked.config);
  }
};

const run = async (config: Config): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Fault('NotRoot', 'the agent must run as root: each machine gets a Unix user of its own', { retry: 'never' });
  const log = pino({ level: config.log_level, base: {} });
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, 'ending');
      ending.abort(new Error(signal));
    });
  }
  const at = paths({ stateDir: config.state_dir, imageCacheDir: config.image_cache_dir, socketDir: config.qemu_socket_dir });
  await makeFolders(config);
  await using lock = await takeStateLock(at, ending.signal);
  void lock.lost.then((why) => {
    // From here on another agent may hold the folders: not one more step.
    log.fatal({ why }, 'the lock of the state folder is lost; ending at once');
    process.exit(1);
  });
  // Disposed before the lock is given back.
  await using images = await makeImageStore({
    paths: at, unixId: config.unix_ids.max, bootId: await readBootId(), clock: systemClock, chance: Math.random, log,
    limits: limitsFor(toMiB(config.image_max_size)), cacheRules: cacheOf(toMiB(config.image_cache_max)),
    guard: makeGuard({ allowed: config.image_allowed_networks }),
  });
  const agent = await assemble(config, at, images, log, ending.signal);
  await new Promise<void>((resolve) => {
    if (ending.signal.aborted) resolve();
    else ending.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await agent.stop();
};

const makeFolders = async ({ state_dir, image_cache_dir, qemu_socket_dir }: Config): Promise<void> => {
  const wanted = [['state_dir', state_dir, 0o700], ['image_cache_dir', image_cache_dir, 0o700], ['qemu_socket_dir', qemu_socket_dir, 0o711]] as const;
  for (const [key, folder, mode] of wanted) {
    await mkdir(folder, { recursive: true, mode }).catch((cause: unknown) => {
      throw new Fault('FolderFailed', `${key} ${folder} can not be made: ${messageOf(cause)}`, { cause });
    });
  }
};

const assemble = async (config: Config, at: Paths, images: Awaited<ReturnType<typeof makeImageStore>>, log: Logger, signal: AbortSignal): Promise<Agent> => {
  const known = await readAgentId(at);
  const agentId = known ?? randomUUID();
  const shelf = makeFileShelf(at, known === undefined);
  if (known === undefined) {
    // The folders first: once the id is there, one that is missing is a loss and not a beginning.
    await shelf.load();
    await writeAgentId(at, agentId);
  }
  const node = await readNodeIdentity();
  const late: { agent?: Agent } = {};
  const hypervisor = await hypervisors.qemu({ paths: at, bootId: node.bootId, accelerate: platform.accelerator === 'kvm' ? config.enable_kvm : config.enable_hvf, log, onProved: () => late.agent?.lookAgain() }, signal);
  const guard = config.guard_user_network ? await startGuard({ ids: config.unix_ids, log }, signal) : unguarded;
  late.agent = await startAgent({
    agentId, node, hypervisor, images, guests: (changed, limit) => makeGuests({ established: hypervisor.established, paths: at, clock: systemClock, log, changed }, limit), shelf, log, hostMs,
    // The last id of the range is that of image conversions.
    unixIds: { min: config.unix_ids.min, max: config.unix_ids.max - 1 },
    network: networks[config.network_mode]({ guard, forwards: { address: config.forward_address, minPort: config.forward_ports.min, maxPort: config.forward_ports.max } }),
    storage: makeFileStorage({ paths: at, log }),
    dial: makeDial({ url: config.control_plane_url, ...(config.control_plane_ca === undefined ? {} : { caFile: config.control_plane_ca }) }),
    token: () => readToken(config.token_file),
    clock: systemClock, newId: randomUUID, chance: Math.random,
  });
  return late.agent;
};

main().then(
  () => { process.exitCode = 0; },
  (error: unknown) => {
    process.stderr.write(`strato-agent: ${messageOf(error)}\n`);
    process.exitCode = 1;
  },
);
