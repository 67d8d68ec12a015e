import { z } from 'zod';
import { messageOf } from '#crds/kit/fault.ts';
import { apiVersion, objectMeta } from '#crds/v1alpha1/meta.ts';
import { virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { isConflict, isNotFound, type Kube, statusOf } from '#operator/kube/kube.ts';
import { pathOf, resourceOf } from '#operator/kube/resource.ts';
import { type EventOf, heldSpec } from './events.ts';
import type { Record } from './record.ts';
import { addedDisk, type Edit, names, withTpm } from './schedule.ts';
import { diaryImage } from './stage.ts';

/** What the API server holds of a VM, as far as an edit needs it. */
const held = z.object({ metadata: objectMeta.required({ namespace: true }), spec: heldSpec });

/** Edits VMs as a user does, and notes what was asked and what came of it. */
export type Editor = {
  /** One edit; one that makes no sense now (a VM that is not there, or that is there already) is left out. Never throws. */
  edit: (edit: Edit) => Promise<void>;
  /** A patch of one VM, tried until it is acknowledged or refused for good, or `signal` aborts. */
  insist: (name: string, spec: { powerState: 'Running' | 'Stopped' }, signal: AbortSignal) => Promise<void>;
  /** The uid that a name had last, as far as anybody told us. */
  uidOf: (name: string) => string | undefined;
};

const namespace = 'default';
const answerMs = 4_000;
const tries = 8;
// One port of the node for each name: who is made anew waits for the one that is going.
const firstPort = 31_740;
const vms = resourceOf(virtualMachineKind);

/**
 * An editor. Every change names the version that it was made on, so that a request which nobody waits for any more can not be
 * carried out later, after others: what was asked for first is done first or never.
 */
export const makeEditor = (kube: Kube, record: Record): Editor => {
  const uids = new Map<string, string>();
  let requests = 0;
  const at = (name: string) => pathOf(vms, { namespace, name });

  /** Sends a request and notes its outcome. */
  const ask = async (asked: Pick<EventOf<'asked'>, 'verb' | 'name' | 'uid' | 'body'>, send: () => Promise<unknown>): Promise<'done' | 'refused' | 'stale' | 'unknown'> => {
    const request = (requests += 1);
    record.note({ is: 'asked', request, ...asked });
    try {
      const answer = await send();
      const object = asked.verb === 'delete' ? undefined : held.parse(answer);
      if (object) uids.set(asked.name, object.metadata.uid);
      record.note({ is: 'answered', request, outcome: 'done', ...(object ? { object: { name: object.metadata.name, uid: object.metadata.uid, spec: object.spec, deleting: object.metadata.deletionTimestamp !== undefined } } : {}) });
      return 'done';
    } catch (thrown) {
      const status = statusOf(thrown) ?? 0;
      // What the server has refused by its own word was not done. A 5xx may be of a server that ends.
      const refused = status >= 400 && status < 500;
      record.note({ is: 'answered', request, outcome: refused ? 'refused' : 'unknown', why: messageOf(thrown).slice(0, 300) });
      return !refused ? 'unknown' : isConflict(thrown) ? 'stale' : 'refused';
    }
  };

  const read = async (name: string) => {
    const object = held.parse(await kube.request('GET', at(name), { deadlineMs: answerMs }));
    uids.set(name, object.metadata.uid);
    return object;
  };

  /** Changes what is there now; tried again when it has changed meanwhile. */
  const change = async (name: string, verb: 'patch' | 'delete', spec: { [key: string]: unknown } = {}): Promise<'done' | 'refused' | 'stale' | 'unknown' | 'none'> => {
    for (let left = tries; ; left -= 1) {
      const now = await read(name).catch((thrown: unknown) => (isNotFound(thrown) ? undefined : 'unread' as const));
      if (now === undefined) return 'none';
      if (now === 'unread') return 'unknown';
      const { uid, resourceVersion } = now.metadata;
      const ended = await ask({ verb, name, uid, ...(verb === 'patch' ? { body: { spec } } : {}) }, () => (verb === 'patch'
        ? kube.request('PATCH', at(name), { body: { metadata: { uid, resourceVersion }, spec }, contentType: 'application/merge-patch+json', deadlineMs: answerMs })
        : kube.request('DELETE', at(name), { body: { preconditions: { uid, resourceVersion } }, deadlineMs: answerMs })));
      if (ended !== 'stale' || left <= 1) return ended;
    }
  };

  const create = async ({ name, powerState, restartPolicy, graceSeconds }: Edit & { do: 'create' }): Promise<void> => {
    const spec = {
      powerState, restartPolicy, cpu: { cores: 1 }, memory: { size: '32Mi' }, stop: { gracePeriodSeconds: graceSeconds },
      disks: disksOf(false), ...(withTpm.includes(name) ? { firmware: { tpm: true } } : {}),
    };
    await ask({ verb: 'create', name, body: { spec } }, () => kube.request('POST', pathOf(vms, { namespace }), {
      body: { apiVersion, kind: virtualMachineKind.kind, metadata: { name, namespace }, spec }, deadlineMs: answerMs,
    }));
  };

  return {
    uidOf: (name) => uids.get(name),
    edit: async (edit) => {
      if (edit.do === 'create') await create(edit);
      else if (edit.do === 'delete') await change(edit.name, 'delete');
      else await change(edit.name, 'patch', patchOf(edit));
    },
    insist: async (name, spec, signal) => {
      for (;;) {
        signal.throwIfAborted();
        const ended = await change(name, 'patch', spec);
        if (ended !== 'unknown' && ended !== 'stale') return;
      }
    },
  };
};

/** The disks that a VM is created with, and one more. */
const disksOf = (more: boolean) => [
  { name: 'root', image: { name: diaryImage } }, { name: 'data', blank: {}, size: '8Mi' }, ...(more ? [{ name: addedDisk, blank: {}, size: '8Mi' }] : []),
];

const patchOf = (edit: Exclude<Edit, { do: 'create' | 'delete' }>): { [key: string]: unknown } => {
  switch (edit.do) {
    case 'power':
      return { powerState: edit.to };
    case 'policy':
      return { restartPolicy: edit.to };
    case 'restart':
      return { restartToken: edit.token };
    case 'memory':
      return { memory: { size: edit.size } };
    case 'disk':
      return { disks: disksOf(edit.has) };
    case 'nic':
      return { interfaces: edit.has ? [{ name: 'lan', user: { forwards: [{ name: 'ssh', hostPort: firstPort + names.indexOf(edit.name), port: 22 }] } }] : [] };
    case 'stopMode':
      return { stop: { mode: edit.mode } };
    case 'touch':
      return { cloudInit: { hostname: edit.hostname } };
  }
};
