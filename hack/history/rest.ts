import { type EventOf, eventsOf, type HistoryEvent, isQemu, type Standing } from './events.ts';
import type { Violation } from './violation.ts';

/** At rest each VM does what its spec declares, its status says so, and every process belongs to one that runs. Pure. */
export const judgeRests = (history: readonly HistoryEvent[]): Violation[] => {
  const hurt = new Set(eventsOf(history, 'did').flatMap(({ uid, hurts }) => (hurts && uid !== undefined ? [uid] : [])));
  return eventsOf(history, 'rest').flatMap((rest) => [
    ...rest.objects.flatMap((object) => judgeObject(object, rest, hurt.has(object.uid)).map((what): Violation => (
      { rule: 'what is declared is what runs', t: rest.t, uid: object.uid, what: `${rest.stage}: VM ${object.name} (${object.uid}) ${what}` }
    ))),
    ...strays(rest),
  ]);
};

/** Guest states of QEMU for which a machine counts as paused. Source: QAPI RunState. */
const still = new Set(['paused', 'prelaunch']);

const judgeObject = (object: Standing, { processes, guests }: EventOf<'rest'>, hurt: boolean): string[] => {
  const { spec, uid, phase, ready, reason, message, deleting } = object;
  const machines = processes.filter((each) => each.uid === uid && isQemu(each.program));
  const guest = guests[uid] ?? 'none';
  const says = `its status says ${phase}, Ready=${ready} ${reason}: ${message}`;
  if (deleting) return [`is still being deleted; ${says}`];
  const wrong: string[] = [];
  const expect = (holds: boolean, what: string): void => { if (!holds) wrong.push(what); };
  expect(object.observedGeneration === object.generation, `is at generation ${object.generation}, and its status speaks of ${object.observedGeneration}`);
  if (hurt && mayStayDown(object)) {
    expect(machines.length === 0, `has ended by itself and still has ${machines.length} QEMU`);
    return wrong;
  }
  expect(ready === 'True' && phase === spec.powerState, `is declared ${spec.powerState}; ${says}`);
  switch (spec.powerState) {
    case 'Stopped':
      expect(machines.length === 0, `is declared Stopped and has ${machines.length} QEMU`);
      return wrong;
    case 'Paused':
      expect(machines.length === 1 && still.has(guest), `is declared Paused and has ${machines.length} QEMU; its guest is ${guest}`);
      return wrong;
    case 'Running':
      expect(machines.length === 1 && guest === 'running', `is declared Running and has ${machines.length} QEMU; its guest is ${guest}`);
      return wrong;
  }
};

/** Whether its status says that it ended by itself, and its policy lets it be. Without the field nothing is restarted. */
const mayStayDown = ({ ready, reason, spec: { restartPolicy = 'Never' } }: Standing): boolean =>
  ready !== 'True' && ((reason === 'QemuCrashed' && restartPolicy === 'Never') || (reason === 'GuestShutdown' && restartPolicy !== 'Always'));

const strays = ({ t, stage, objects, processes, traces }: EventOf<'rest'>): Violation[] => {
  const living = new Set(objects.map(({ uid }) => uid));
  const running = new Set(processes.filter(({ program }) => isQemu(program)).map(({ uid }) => uid));
  const stray = processes.flatMap(({ uid, pid, program }): Violation[] => {
    if (!living.has(uid)) return [{ rule: 'nothing of a deleted VM', t, uid, what: `${stage}: process ${pid} (${program}) of VM ${uid}, which is deleted` }];
    return running.has(uid) ? [] : [{ rule: 'what is declared is what runs', t, uid, what: `${stage}: process ${pid} (${program}) is left of VM ${uid}, which does not run` }];
  });
  const supervisors = Map.groupBy(processes.filter(({ program }) => !isQemu(program)), ({ uid, program }) => `${uid} ${program}`);
  const twins = [...supervisors.values()].flatMap((group): Violation[] => {
    const [first] = group;
    if (!first || group.length < 2) return [];
    return [{ rule: 'what is declared is what runs', t, uid: first.uid, what: `${stage}: VM ${first.uid} has ${group.length} processes ${first.program} (${group.map(({ pid }) => pid).join(', ')})` }];
  });
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
