import { access } from 'node:fs/promises';
import { z } from 'zod';
import { jittered } from '#crds/kit/backoff.ts';
import { asFault, Fault } from '#crds/kit/fault.ts';
import { platform } from '../../host/platform.ts';
import type { Architecture, Hypervisor, HypervisorOptions } from '../driver.ts';
import { boards } from './board.ts';
import { boundRecords } from './bound.ts';
import { openCgroups } from './cgroup.ts';
import { changeMachine } from './change.ts';
import { findFirmware } from './firmware.ts';
import { forgetMachine, killMachine, revokeStart } from './end.ts';
import type { House } from './house.ts';
import { observeMachine, openMonitor, statusOf } from './look.ts';
import { findProgram, type Programs, proveQemu, type Verdict } from './probe.ts';
import { executeHmp, type Qmp } from './qmp.ts';
import { closeSockets, startMachine } from './start.ts';
import { isEstablished } from './usernet.ts';
import { makeWatcher } from './watch.ts';

const nothing = z.unknown();
const boundEachMs = 5_000;
const proveAgain = { baseMs: 2_000, maxMs: 60_000 };

/**
 * Runs machines as QEMU processes that outlive the agent. Needs root. While its probe guests run (`onProved` tells) it
 * observes and ends machines already, but starts are refused. Until `signal` aborts it keeps the records of machines short.
 * Faults: QemuMissing.
 */
export const makeQemu = async ({ paths, bootId, accelerate, log, onProved }: HypervisorOptions, signal: AbortSignal): Promise<Hypervisor> => {
  const path = process.env.PATH ?? '';
  const host: Architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const foreign: Architecture = host === 'arm64' ? 'amd64' : 'arm64';
  const optional = (name: string): Promise<string | undefined> => findProgram(name, path).catch(() => undefined);
  const own = await findProgram(boards[host].program, path);
  const [other, swtpm, hasVsock, firmware] = await Promise.all([
    optional(boards[foreign].program), optional('swtpm'), access('/dev/vhost-vsock').then(() => true, () => false), findFirmware(),
  ]);
  const programs: Programs = { [host]: own, ...(other === undefined ? {} : { [foreign]: other }) };
  const watcher = makeWatcher(log);
  let proved: ReturnType<House['proved']> = { is: 'unready', why: { reason: 'Preparing', message: 'it is being found out by a probe guest what QEMU can do on this node' } };
  prove(async () => proveQemu({ programs, host, bootId, wanted: accelerate ? platform.accelerator : null, verdictFile: paths.accelerator }, signal), ({ code, message }) => {
    log.error({ code, err: message }, 'QEMU could not be probed');
    proved = { is: 'unready', why: { reason: code, message } };
  }, signal).then((verdict) => {
    proved = { is: 'proved', verdict };
    log.info({ version: verdict.version, features: featuresOf(verdict, house) }, 'what QEMU can do on this node');
    onProved();
  }).catch(() => {});
  const house: House = { paths, log, bootId, firmware, hasTpm: swtpm !== undefined, hasVsock, cgroups: await openCgroups(), watcher, proved: () => proved };
  let busy = false;
  const bounding = setInterval(() => {
    if (busy) return;
    busy = true;
    void boundRecords(paths, (uid, thrown) => log.warn({ uid, err: thrown }, 'the records of a VM could not be bounded'))
      .catch((thrown: unknown) => log.warn({ err: thrown }, 'the records of VMs could not be bounded'))
      .finally(() => { busy = false; });
  }, boundEachMs).unref();
  signal.addEventListener('abort', () => {
    clearInterval(bounding);
    watcher[Symbol.dispose]();
  }, { once: true });

  const ask = async <T>(uid: string, limit: AbortSignal, talk: (qmp: Qmp) => Promise<T>): Promise<T> => {
    try {
      using qmp = await openMonitor(house, uid, limit);
      return await talk(qmp);
    } catch (thrown) {
      if (thrown instanceof Fault && thrown.code === 'QmpRefused') throw new Fault('NotRunning', `VM ${uid} has no machine that answers`, { cause: thrown });
      throw thrown;
    }
  };

  return {
    capabilities: () => {
      if (proved.is === 'unready') return { version: '', accelerators: [], features: [], cpuModels: {}, unready: proved.why };
      const { version, host: own, boards: found } = proved.verdict;
      return {
        version, accelerators: found[own]?.accelerators ?? [], features: featuresOf(proved.verdict, house),
        cpuModels: Object.fromEntries(Object.entries(found).map(([architecture, { cpuModels }]) => [architecture, cpuModels])),
      };
    },
    observe: (uid, limit) => observeMachine(house, uid, limit),
    start: (spec, limit) => startMachine(house, spec, limit),
    resume: (uid, limit) => ask(uid, limit, async (qmp) => {
      // An agent may have died between the launch and here: this must be so before the first instruction.
      if ((await statusOf(qmp, limit)) === 'prelaunch') await closeSockets(house, uid);
      await qmp.execute('cont', nothing, limit);
    }),
    pause: (uid, limit) => ask(uid, limit, async (qmp) => void (await qmp.execute('stop', nothing, limit))),
    change: (uid, change, limit) => ask(uid, limit, async (qmp) => {
      try {
        await changeMachine(qmp, change, limit);
      } catch (thrown) {
        if (thrown instanceof Fault && thrown.code === 'QmpFailed') throw new Fault('ChangeRefused', thrown.message, { cause: thrown });
        throw thrown;
      }
    }),
    powerdown: (uid, limit) => ask(uid, limit, async (qmp) => void (await qmp.execute('system_powerdown', nothing, limit))),
    established: (uid, at, limit) => ask(uid, limit, async (qmp) => isEstablished(await executeHmp(qmp, 'info usernet', limit), at)),
    kill: (uid, limit) => killMachine(house, uid, limit),
    revoke: (uid, startId, limit) => revokeStart(house.paths, uid, startId, limit),
    forget: (uid, limit) => forgetMachine(house, uid, limit),
    watch: watcher.listen,
  };
};

/** What VMs may ask for. Pure. */
const featuresOf = ({ boards: found }: Verdict, { firmware, hasTpm, hasVsock }: Pick<House, 'firmware' | 'hasTpm' | 'hasVsock'>): string[] => [
  ...(['amd64', 'arm64'] as const).flatMap((architecture) => (found[architecture] ? [
    `arch:${architecture}`, ...(firmware[architecture]?.plain ? [`uefi:${architecture}`] : []), ...(firmware[architecture]?.secure ? [`secureboot:${architecture}`] : []),
  ] : [])),
  ...(hasTpm ? ['tpm'] : []),
  ...(hasVsock ? ['vsock'] : []),
];

/** Proves until it succeeds: a node that is short of memory for a moment is not one without QEMU. */
const prove = async (look: () => Promise<Verdict>, failed: (why: Fault) => void, signal: AbortSignal): Promise<Verdict> => {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await look();
    } catch (thrown) {
      signal.throwIfAborted();
      failed(asFault(thrown, 'QemuUnusable', 'probing QEMU'));
      await new Promise((resolve) => setTimeout(resolve, jittered(proveAgain, attempt, Math.random())).unref());
    }
  }
};
