import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { NodePort } from '../hypervisor/driver.ts';
import type { GuestAgent } from './qga.ts';
import type { SerialScan } from './serialscan.ts';

type Probe = NonNullable<DesiredVm['probe']>;

/** Whether a guest is ready, and what that was concluded from. */
export type Readiness = { is: boolean; message: string };

/** The last line that cloud-init writes to the console. Source: cloud-init, final_message of cc_final_message. */
const cloudInitLine = 'Cloud-init v*finished at';
const finishedFile = '/var/lib/cloud/instance/boot-finished';

/** The line that a probe waits for on the serial console; undefined when it looks elsewhere. Pure. */
export const lineOf = (probe: Probe | undefined): string | undefined =>
  probe?.is === 'serialPattern' ? probe.pattern : probe?.is === 'cloudInitDone' ? cloudInitLine : undefined;

/** The node's end of the way to a port, and whether a connection that stands there has been taken by the guest itself. */
type Way = NodePort & { established: (at: NodePort, signal: AbortSignal) => Promise<boolean> };

/** What a probe has at hand: `agent` when the guest's agent answers now. */
export type ProbeSources = { scan?: SerialScan | undefined; agent?: GuestAgent | undefined; tcp?: Way | undefined };

/** Probes a guest once. Never throws for what the guest does; throws what `established` throws. */
export const probeGuest = async (probe: Probe, { scan, agent, tcp }: ProbeSources, signal: AbortSignal): Promise<Readiness> => {
  switch (probe.is) {
    case 'serialPattern':
      return (await scan?.look()) === true
        ? { is: true, message: `the serial console has said ${JSON.stringify(probe.pattern)}` }
        : { is: false, message: `the serial console has not said ${JSON.stringify(probe.pattern)} yet` };
    case 'guestAgent':
      return agent ? { is: true, message: 'the guest agent answers' } : { is: false, message: 'the guest agent does not answer' };
    case 'cloudInitDone': {
      const done = (await scan?.look()) === true || (agent !== undefined && (await hasFinished(agent)));
      return done ? { is: true, message: 'cloud-init has finished' } : { is: false, message: 'cloud-init has not finished yet' };
    }
    case 'tcp':
      if (!tcp) return { is: false, message: `no interface forwards to TCP port ${probe.port} of the guest; add a forward, or choose another probe` };
      return (await takes(tcp, signal))
        ? { is: true, message: `TCP port ${probe.port} of the guest takes connections` }
        : { is: false, message: `TCP port ${probe.port} of the guest takes no connection` };
  }
};

/** A file that only cloud-init's last stage writes. */
const hasFinished = async (agent: GuestAgent): Promise<boolean> => {
  try {
    const handle = await agent.execute('guest-file-open', z.int(), { path: finishedFile, mode: 'r' });
    await agent.execute('guest-file-close', z.unknown(), { handle });
    return true;
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.code === 'GuestAgentFailed') return false;
    throw thrown;
  }
};

// libslirp takes every connection itself. It ends one when the guest refuses it; one of which the guest says nothing stands for more than a minute.
const standsMs = 500;

const takes = async ({ address, port, established }: Way, signal: AbortSignal): Promise<boolean> => {
  const socket = connect({ host: address, port });
  socket.on('error', () => {});
  try {
    const connected = await once(socket, 'connect', { signal }).then(() => true, () => false);
    if (!connected) return false;
    const at = { address: socket.remoteAddress ?? address, port };
    const closed = once(socket, 'close', { signal }).then(() => false, () => false);
    const said = once(socket, 'data', { signal }).then(() => true, () => false);
    for (;;) {
      const stands = delay(standsMs, undefined, { signal }).catch(() => false);
      const heard = await Promise.race([closed, said, stands]);
      if (heard !== undefined) return heard;
      if (await established(at, signal)) return true;
    }
  } finally {
    socket.destroy();
  }
};
