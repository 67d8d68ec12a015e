import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants, readdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Fault, messageOf } from '#crds/kit/fault.ts';
import type { Part } from '../bed/apart.ts';
import { endChild, runs } from '../bed/process.ts';
import type { Editor } from './editor.ts';
import { isQemu, isTpm } from './events.ts';
import { guestKeys } from './guest.ts';
import { processesBelow } from './proc.ts';
import type { Record } from './record.ts';
import type { Act, AgentTrouble, Blow, ControlTrouble } from './schedule.ts';
import type { Stage } from './stage.ts';

/** How long a process of ours may take to end of its own accord. */
const ownEndMs = 30_000;
/** How long a second agent waits for the lock of the first, and some time to start. */
const refusedMs = 8_000;
/** How long a launcher is waited for. */
const launcherMs = 6_000;

/** Does one act of a schedule on the stage; returns when it is over. Faults: NotEnding, when a process of ours does not end when it should. */
export const makePerformer = (stage: Stage, editor: Editor, record: Record, signal: AbortSignal) => {
  const did = (what: string, uid?: string, hurts = false): void => record.note({ is: 'did', what, ...(uid === undefined ? {} : { uid }), hurts });
  const rest = (ms: number): Promise<void> => delay(ms, undefined, { signal });

  const frozen = async (who: string, child: ChildProcess, forMs: number): Promise<void> => {
    child.kill('SIGSTOP');
    did(`${who} frozen`);
    try {
      await rest(forMs);
    } finally {
      child.kill('SIGCONT');
      did(`${who} thawed`);
    }
  };
  const replaced = async (who: string, part: Part, how: 'SIGKILL' | 'SIGTERM', downMs: number): Promise<void> => {
    await endChild(part.child(), how);
    did(`${who} ended by ${how}`);
    await rest(downMs);
    await part.start();
    did(`${who} started`);
  };
  /** Whether a child ends by itself within `ms`. */
  const ends = async (child: ChildProcess, ms: number): Promise<boolean> => {
    if (runs(child)) await Promise.race([once(child, 'exit'), rest(ms)]);
    return !runs(child);
  };

  const doubled = async (overlapMs: number): Promise<void> => {
    const { agent } = stage;
    const first = agent.child();
    const second = await agent.start();
    did('a second agent started');
    await rest(overlapMs);
    await endChild(first, 'SIGKILL');
    did('the first agent killed');
    if (!(await ends(second, refusedMs))) return did('the second agent has taken over');
    did('the second agent has refused to start');
    await agent.start();
    did('agent started');
  };

  const usurped = async (overlapMs: number): Promise<void> => {
    const { agent } = stage;
    const first = agent.child();
    first.kill('SIGSTOP');
    const holder = lockHolderOf(first.pid ?? 0);
    if (holder !== undefined) process.kill(holder, 'SIGKILL');
    did(holder === undefined ? 'agent frozen; it has no lock yet' : 'agent frozen, its lock taken away');
    const second = await agent.start();
    did('a second agent started');
    await rest(overlapMs);
    first.kill('SIGCONT');
    did('the first agent thawed');
    if (holder !== undefined && !(await ends(first, ownEndMs))) throw new Fault('NotEnding', `the agent ${first.pid} lost the lock of its folder and did not end within ${ownEndMs / 1000} s`);
    // One that had no lock yet has it now, and the second refuses; or the other way round.
    if (holder === undefined) await Promise.race([ends(first, refusedMs), ends(second, refusedMs)]);
    if (runs(first)) await endChild(first, 'SIGKILL');
    did('the first agent is gone');
    await agent.ensure();
  };

  const stalled = async ({ forMs, downMs }: AgentTrouble & { do: 'stallLauncher' }): Promise<void> => {
    const launcher = await nextLauncherOf(stage.agent.child(), AbortSignal.any([signal, AbortSignal.timeout(launcherMs)]));
    if (launcher === undefined) return;
    did(`launcher ${launcher.pid} frozen`, launcher.uid);
    try {
      await replaced('agent', stage.agent, 'SIGKILL', downMs);
      await rest(forMs);
    } finally {
      signalled(launcher.pid, 'SIGCONT');
      did(`launcher ${launcher.pid} thawed`, launcher.uid);
    }
  };

  const agentTrouble = async (act: AgentTrouble): Promise<void> => {
    const { agent } = stage;
    await agent.ensure();
    switch (act.do) {
      case 'killAgent':
        return replaced('agent', agent, 'SIGKILL', act.downMs);
      case 'endAgent':
        return replaced('agent', agent, 'SIGTERM', act.downMs);
      case 'freezeAgent':
        return frozen('agent', agent.child(), act.forMs);
      case 'doubleAgent':
        return doubled(act.overlapMs);
      case 'usurpAgent':
        return usurped(act.overlapMs);
      case 'stallLauncher':
        return stalled(act);
    }
  };

  const controlTrouble = async (act: ControlTrouble): Promise<void> => {
    const { operator, cluster } = stage;
    await operator.ensure();
    switch (act.do) {
      case 'killOperator':
        return replaced('operator', operator, 'SIGKILL', act.downMs);
      case 'endOperator':
        return replaced('operator', operator, 'SIGTERM', act.downMs);
      case 'freezeOperator':
        return frozen('operator', operator.child(), act.forMs);
      case 'killApi':
        await cluster.kill();
        did('API server killed');
        await rest(act.downMs);
        await cluster.start();
        return did('API server ready again');
      case 'freezeApi':
        await cluster.freeze(true);
        did('API server frozen');
        try {
          return await rest(act.forMs);
        } finally {
          await cluster.freeze(false);
          did('API server thawed');
        }
    }
  };

  const blow = async (act: Blow): Promise<void> => {
    const uid = editor.uidOf(act.name);
    const mine = uid === undefined ? [] : processesBelow(stage.node.paths.vms).filter((each) => each.uid === uid);
    const target = mine.find(({ program }) => isTarget(act.do, program));
    if (uid === undefined || !target) return;
    switch (act.do) {
      case 'killQemu':
        did(`QEMU ${target.pid} of ${act.name} killed`, uid, true);
        return signalled(target.pid, 'SIGKILL');
      case 'killSupervisor':
        // Its QEMU goes on, but before it was started this ends the start.
        did(`supervisor ${target.pid} of ${act.name} killed`, uid, true);
        return signalled(target.pid, 'SIGKILL');
      case 'killTpm':
        // The guest goes on without it; QEMU ends when that guest reboots.
        did(`TPM ${target.pid} of ${act.name} killed`, uid, true);
        return signalled(target.pid, 'SIGKILL');
      case 'guestOff':
        did(`guest of ${act.name} told to power itself off`, uid, true);
        return typed(stage.node.paths.serialInput(uid), guestKeys.off);
      case 'guestReboot':
        did(`guest of ${act.name} told to reboot`, uid, false);
        return typed(stage.node.paths.serialInput(uid), guestKeys.reboot);
      case 'freezeQemu':
        did(`QEMU ${target.pid} of ${act.name} frozen`, uid, false);
        signalled(target.pid, 'SIGSTOP');
        try {
          return await rest(act.forMs);
        } finally {
          signalled(target.pid, 'SIGCONT');
          did(`QEMU ${target.pid} of ${act.name} thawed`, uid, false);
        }
    }
  };

  return async (act: Act): Promise<void> => {
    switch (act.lane) {
      case 'edit':
        return editor.edit(act.act);
      case 'blow':
        return blow(act.act);
      case 'agent':
        return agentTrouble(act.act);
      case 'control':
        return controlTrouble(act.act);
    }
  };
};

/** Whether a process of a VM is the one that a blow is for. */
const isTarget = (blow: Blow['do'], program: string): boolean => {
  if (blow === 'killTpm') return isTpm(program);
  return blow === 'killSupervisor' ? !isQemu(program) && !isTpm(program) : isQemu(program);
};

const signalled = (pid: number, how: NodeJS.Signals): void => {
  try {
    process.kill(pid, how);
  } catch (thrown) {
    // It has ended in the meantime.
    if (!messageOf(thrown).includes('ESRCH')) throw thrown;
  }
};

/** Types on a serial console, if anybody reads it. */
const typed = async (fifo: string, key: string): Promise<void> => {
  const handle = await open(fifo, constants.O_WRONLY | constants.O_NONBLOCK).catch(() => undefined);
  await handle?.write(key);
  await handle?.close();
};

/** Children of a process, with their command lines. Source: proc(5), /proc/PID/task/TID/children. */
const childrenOf = (parent: number): { pid: number; command: string[] }[] => {
  try {
    return readdirSync(`/proc/${parent}/task`)
      .flatMap((task) => readFileSync(`/proc/${parent}/task/${task}/children`, 'utf8').split(' '))
      .filter((pid) => pid !== '').map((pid) => ({ pid: Number(pid), command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0') }));
  } catch {
    // Somebody has ended while we looked.
    return [];
  }
};

/** The shell that holds the lock of an agent's folders. */
const lockHolderOf = (agent: number): number | undefined => childrenOf(agent).find(({ command }) => command.includes('strato-agent-lock'))?.pid;

/** Freezes the next launcher that an agent starts, as early as it is seen; undefined when none came before `signal` aborted. */
const nextLauncherOf = async (agent: ChildProcess, signal: AbortSignal): Promise<{ pid: number; uid: string } | undefined> => {
  const known = new Set(childrenOf(agent.pid ?? 0).map(({ pid }) => pid));
  while (!signal.aborted && runs(agent)) {
    for (const { pid, command } of childrenOf(agent.pid ?? 0)) {
      const at = command.indexOf('strato-machine');
      if (known.has(pid) || at < 0) continue;
      signalled(pid, 'SIGSTOP');
      return { pid, uid: basename(command[at + 1] ?? '') };
    }
    await delay(1);
  }
  return undefined;
};
