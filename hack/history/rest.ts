import { toMiB } from '#crds/kit/quantity.ts';
import { type EventOf, eventsOf, type HistoryEvent, isQemu, isTpm, type Standing } from './events.ts';
import type { Violation } from './violation.ts';

/** At rest each VM does what its spec declares, its status says so, and every process belongs to one that runs. Pure. */
export const judgeRests = (history: readonly HistoryEvent[]): Violation[] => {
  const hurtAt = new Map(eventsOf(history, 'did').flatMap(({ uid, hurts, t }) => (hurts && uid !== undefined ? [[uid, t] as const] : [])));
  return eventsOf(history, 'rest').flatMap((rest) => [
    ...rest.objects.flatMap((object) => judgeObject(object, rest, rest.t - (hurtAt.get(object.uid) ?? Number.NEGATIVE_INFINITY)).map((what): Violation => (
      { rule: 'what is declared is what runs', t: rest.t, uid: object.uid, what: `${rest.stage}: VM ${object.name} (${object.uid}) ${what}` }
    ))),
    ...strays(rest),
  ]);
};

/** Guest states of QEMU for which a machine counts as paused. Source: QAPI RunState. */
const still = new Set(['paused', 'prelaunch']);

/** The longest delay of a restart by policy, and some time to make it. */
const restartMs = 330_000;

const judgeObject = (object: Standing, { processes, guests }: EventOf<'rest'>, sinceHurtMs: number): string[] => {
  const { spec, uid, phase, ready, reason, message, deleting } = object;
  const machines = processes.filter((each) => each.uid === uid && isQemu(each.program));
  const guest = guests[uid];
  const says = `its status says ${phase}, Ready=${ready} ${reason}: ${message}`;
  if (deleting) return [`is still being deleted; ${says}`];
  const wrong: string[] = [];
  const expect = (holds: boolean, what: string): void => { if (!holds) wrong.push(what); };
  expect(object.observedGeneration === object.generation, `is at generation ${object.generation}, and its status speaks of ${object.observedGeneration}`);
  if (mayBeDown(object, sinceHurtMs)) {
    expect(machines.length === 0, `has ended by itself and still has ${machines.length} QEMU`);
    return wrong;
  }
  expect(ready === 'True' && phase === spec.powerState, `is declared ${spec.powerState}; ${says}`);
  if (spec.powerState === 'Stopped') expect(machines.length === 0, `is declared Stopped and has ${machines.length} QEMU`);
  else {
    const as = spec.powerState === 'Paused' ? still.has(guest?.status ?? '') : guest?.status === 'running';
    expect(machines.length === 1 && as, `is declared ${spec.powerState} and has ${machines.length} QEMU; its guest is ${guest?.status ?? 'silent'}`);
    expect(object.restartTokenObserved === spec.restartToken, `has honoured the restartToken ${object.restartTokenObserved ?? 'none'}, and ${spec.restartToken ?? 'none'} is declared`);
    const declared = spec.disks.map(({ name }) => name).toSorted();
    expect(object.restartRequired || guest === undefined || guest.disks.join() === declared.join(), `has the disks ${guest?.disks.join(' ')}, is declared to have ${declared.join(' ')}, and no restart is said to be needed`);
    const cards = spec.interfaces?.length ?? 0;
    expect(object.restartRequired || guest === undefined || guest.nics === cards, `has ${guest?.nics} network cards, is declared to have ${cards}, and no restart is said to be needed`);
    expect(object.restartRequired || guest === undefined || guest.memoryMiB === toMiB(spec.memory.size), `has ${guest?.memoryMiB} MiB of memory, is declared to have ${spec.memory.size}, and no restart is said to be needed`);
  }
  return wrong;
};

/** Whether its status says that its guest ended by itself, somebody saw to that, and its policy lets it be, or has still to wait with the restart. */
const mayBeDown = ({ ready, reason, reconciling, spec: { restartPolicy } }: Standing, sinceHurtMs: number): boolean => {
  if (ready === 'True' || sinceHurtMs === Number.POSITIVE_INFINITY || (reason !== 'QemuCrashed' && reason !== 'GuestShutdown')) return false;
  const restarts = restartPolicy === 'Always' || (restartPolicy === 'OnFailure' && reason === 'QemuCrashed');
  return restarts ? reconciling && sinceHurtMs < restartMs : !reconciling;
};

const strays = ({ t, stage, objects, processes, traces }: EventOf<'rest'>): Violation[] => {
  const living = new Set(objects.map(({ uid }) => uid));
  const running = new Set(processes.filter(({ program }) => isQemu(program)).map(({ uid }) => uid));
  const stray = processes.flatMap(({ uid, pid, program }): Violation[] => {
    if (!living.has(uid)) return [{ rule: 'nothing of a deleted VM', t, uid, what: `${stage}: process ${pid} (${program}) of VM ${uid}, which is deleted` }];
    return running.has(uid) ? [] : [{ rule: 'what is declared is what runs', t, uid, what: `${stage}: process ${pid} (${program}) is left of VM ${uid}, which does not run` }];
  });
  // A supervisor may have children of its own; a second one has another parent than the first.
  const pids = new Set(processes.map(({ pid }) => pid));
  const supervisors = Map.groupBy(processes.filter(({ program, parent }) => !isQemu(program) && !isTpm(program) && !pids.has(parent)), ({ uid }) => uid);
  const twins = [...supervisors].flatMap(([uid, group]): Violation[] => (group.length < 2
    ? []
    : [{ rule: 'what is declared is what runs', t, uid, what: `${stage}: VM ${uid} has ${group.length} supervisors (${group.map(({ pid, program }) => `${program} ${pid}`).join(', ')})` }]));
  const left = Object.entries(traces).flatMap(([uid, what]): Violation[] =>
    (living.has(uid) || what.length === 0 ? [] : [{ rule: 'nothing of a deleted VM', t, uid, what: `${stage}: VM ${uid} is deleted and has left ${what.join(', ')}` }]));
  return [...stray, ...twins, ...left];
};

/** Once the API server does not know a uid any more, no process of it is there, ever again. Pure. */
export const judgeGone = (history: readonly HistoryEvent[]): Violation[] => {
  const gone = new Map(eventsOf(history, 'gone').map(({ uid, t }) => [uid, t]));
  const ends = new Map(eventsOf(history, 'ended').map(({ pid, ticks, last }) => [`${pid} ${ticks}`, last]));
  return eventsOf(history, 'process').flatMap(({ uid, pid, ticks, program }): Violation[] => {
    const since = gone.get(uid);
    const last = ends.get(`${pid} ${ticks}`) ?? Number.POSITIVE_INFINITY;
    if (since === undefined || !isQemu(program) || last <= since) return [];
    return [{ rule: 'nothing of a deleted VM', t: since, uid, what: `QEMU ${pid} of VM ${uid} was there after the API server had forgotten that VM` }];
  });
};
