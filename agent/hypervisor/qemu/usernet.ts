import type { NodePort } from '../driver.ts';

/**
 * Whether a connection to a port of the node has reached the guest and was taken there. Pure. libslirp takes every connection to a forward itself,
 * and only then asks its guest; until that answers, the connection is in the state SYN_SENT. `text` is what QEMU's monitor for people says
 * of user networks; there is no other way to ask. Source: QEMU, `info usernet`; libslirp, slirp_connection_info.
 */
export const isEstablished = (text: string, { address, port }: NodePort): boolean =>
  text.split('\n').some((line) => {
    const [state, , from, fromPort] = line.trim().split(/\s+/);
    return state === 'TCP[ESTABLISHED]' && from === address && fromPort === String(port);
  });
