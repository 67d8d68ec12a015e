import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { z } from 'zod';
import { openQmp } from '#agent/hypervisor/qemu/qmp.ts';
import { Fault } from '#crds/kit/fault.ts';
import { until } from '../bed/until.ts';

/** A bare QEMU for trying images: no agent, no ledger. Disposing it ends it. */
export type Machine = AsyncDisposable & {
  /** All that the guest has written on its serial port, with plain line ends. */
  serial: () => string;
  /** Waits for `pattern` on the serial port. Fault Guest, with all that was said, when it does not come in time or QEMU ends without it. */
  saw: (pattern: RegExp, deadlineMs: number) => Promise<RegExpExecArray>;
  /** Types on the serial port. */
  type: (text: string) => void;
  /** Executes a QMP command (QEMU QMP reference manual) and returns what it returned. Faults as `openQmp`. */
  qmp: (execute: string, args?: Record<string, unknown>) => Promise<unknown>;
  /** Resolves to the exit code when QEMU has ended. */
  ended: Promise<number | null>;
};

const qmpMs = 60_000;

/** How QEMU is called for a kind of machine, before what a test adds. */
export type Kind = { program: string; args: readonly string[] };

/** q35 under TCG, like the agent's. */
export const q35: Kind = { program: 'qemu-system-x86_64', args: ['-M', 'q35', '-accel', 'tcg', '-cpu', 'max'] };

/** A 64-bit Arm machine under TCG. A model without pointer authentication, which TCG emulates at a fourth of the speed. */
export const virt: Kind = { program: 'qemu-system-aarch64', args: ['-M', 'virt', '-accel', 'tcg', '-cpu', 'cortex-a57'] };

/** Starts QEMU with its socket in `dir`; `args` bring the disks and NICs, and may add to -m, -smp and -machine. */
export const startMachine = async (dir: string, memoryMiB: number, args: readonly string[], { program, args: kind }: Kind = q35): Promise<Machine> => {
  const socketPath = join(dir, 'qmp.sock');
  const child = spawn(
    program,
    [
      ...kind, '-m', `${memoryMiB}`,
      '-nodefaults', '-no-user-config', '-display', 'none',
      '-chardev', 'stdio,id=serial,signal=off', '-serial', 'chardev:serial', '-qmp', `unix:${socketPath},server=on,wait=off`,
      ...args,
    ],
    { cwd: dir, stdio: ['pipe', 'pipe', 'pipe'] },
  );
  let isClosed = false;
  const ended = once(child, 'close').then(() => {
    isClosed = true;
    return child.exitCode;
  });
  let serial = '';
  let complaint = '';
  child.stdin.on('error', () => undefined);
  child.stdout.setEncoding('latin1').on('data', (text: string) => (serial += text.replaceAll('\r', '')));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
  const isOver = () => child.exitCode !== null || child.signalCode !== null;

  const saw: Machine['saw'] = (pattern, deadlineMs) =>
    until(`${pattern} on the serial port, or QEMU's end`, () => pattern.exec(serial) ?? (isClosed ? 'over' : undefined), deadlineMs)
      .then((found) => {
        if (found === 'over') throw new Error('QEMU has ended');
        return found;
      })
      .catch((cause: unknown) => {
        throw new Fault('Guest', `no ${pattern}; the guest said:\n${serial}\nQEMU said: ${complaint}`, { cause });
      });

  const qmp: Machine['qmp'] = async (execute, args_) => {
    const signal = AbortSignal.timeout(qmpMs);
    using monitor = await until('QEMU to answer', () => openQmp(socketPath, signal).catch((thrown: unknown) => {
      if (!isOver() && thrown instanceof Fault && thrown.code === 'QmpRefused') return undefined;
      throw thrown;
    }), qmpMs);
    return await monitor.execute(execute, z.unknown(), signal, args_);
  };

  return {
    serial: () => serial,
    saw,
    type: (text) => child.stdin.write(text),
    qmp,
    ended,
    [Symbol.asyncDispose]: async () => {
      if (!isOver()) child.kill('SIGKILL');
      await ended;
    },
  };
};
