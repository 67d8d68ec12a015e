import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { virtualMachine, virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { objectMeta } from '#crds/v1alpha1/meta.ts';
import type { Kube } from '#operator/kube/kube.ts';
import { pathOf, resourceOf } from '#operator/kube/resource.ts';
import { eventsOf, heldSpec, type Standing } from './events.ts';
import type { Record } from './record.ts';

const list = z.object({ items: z.array(z.object({ metadata: objectMeta.required({ namespace: true }), spec: heldSpec, status: virtualMachine.shape.status })) });
const vms = resourceOf(virtualMachineKind);
const everyMs = 300;
const answerMs = 3_000;

/** Every VM of namespace default as the API server holds it: read from its store, not from a cache. Faults as `Kube`. */
export const readStandings = async (kube: Kube): Promise<Standing[]> => {
  const { items } = list.parse(await kube.request('GET', pathOf(vms, { namespace: 'default' }), { deadlineMs: answerMs }));
  return items.map(({ metadata, spec, status }): Standing => {
    const condition = (type: string) => status.conditions?.find((each) => each.type === type);
    const ready = condition('Ready');
    return {
      name: metadata.name, uid: metadata.uid, spec, generation: metadata.generation, observedGeneration: status.observedGeneration, deleting: metadata.deletionTimestamp !== undefined,
      phase: status.phase ?? 'none', ready: ready?.status ?? 'none', reason: ready?.reason ?? 'none', message: ready?.message ?? '',
      restartRequired: condition('RestartRequired')?.status === 'True', reconciling: condition('Reconciling')?.status === 'True',
      ...(status.restartTokenObserved === undefined ? {} : { restartTokenObserved: status.restartTokenObserved }),
    };
  });
};

/** Notes, until `signal` aborts, how VMs are said to stand, and which of those that were there are not any more. Never rejects. */
export const follow = async (kube: Kube, record: Record, signal: AbortSignal): Promise<void> => {
  const said = new Map<string, string>();
  const gone = new Set<string>();
  const known = new Map<string, string>();
  while (!signal.aborted) {
    // Those that somebody heard of before the question: the answer can not be older than that.
    for (const { object } of eventsOf(record.events(), 'answered')) if (object) known.set(object.uid, object.name);
    const standings = await readStandings(kube).catch(() => undefined);
    if (standings) {
      const there = new Set(standings.map(({ uid }) => uid));
      for (const { uid, name, generation, observedGeneration, phase, ready, reason, deleting } of standings) {
        known.set(uid, name);
        const text = `${deleting ? 'deleting, ' : ''}generation ${generation}, of ${observedGeneration}: ${phase}, Ready=${ready} ${reason}`;
        if (said.get(uid) !== text) record.note({ is: 'says', name, uid, text });
        said.set(uid, text);
      }
      for (const [uid, name] of known) {
        if (there.has(uid) || gone.has(uid)) continue;
        gone.add(uid);
        record.note({ is: 'gone', name, uid });
      }
    }
    await delay(everyMs, undefined, { signal }).catch(() => {});
  }
};
