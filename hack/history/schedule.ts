import { type Chance, chanceOf } from './chance.ts';

/** What a user does to a VM. `disk` adds or takes away one disk, `nic` one network card, `touch` edits what no running guest hears of. */
export type Edit =
  | { do: 'create'; name: string; powerState: PowerState; restartPolicy: RestartPolicy; graceSeconds: number }
  | { do: 'power'; name: string; to: PowerState }
  | { do: 'policy'; name: string; to: RestartPolicy }
  | { do: 'restart'; name: string; token: string }
  | { do: 'memory'; name: string; size: string }
  | { do: 'disk' | 'nic'; name: string; has: boolean }
  | { do: 'stopMode'; name: string; mode: 'Graceful' | 'Force' }
  | { do: 'touch'; name: string; hostname: string }
  | { do: 'delete'; name: string };

/** What befalls a guest and its processes. `killTpm`: the emulator of its TPM ends, where it has one. */
export type Blow =
  | { do: 'killQemu' | 'killSupervisor' | 'killTpm' | 'guestOff' | 'guestReboot'; name: string }
  | { do: 'freezeQemu'; name: string; forMs: number };

/**
 * What befalls the agent. `doubleAgent`: a second one is started beside the living one, which is killed after `overlapMs`.
 * `usurpAgent`: the agent is frozen in its tracks and loses its lock, another takes over, then the old one wakes up.
 * `stallLauncher`: the next launcher of a machine is frozen before it has the machine's lock, the agent is killed and started
 * again, and the launcher wakes up when its place may have been taken.
 */
export type AgentTrouble =
  | { do: 'killAgent'; downMs: number }
  | { do: 'endAgent'; downMs: number }
  | { do: 'freezeAgent'; forMs: number }
  | { do: 'doubleAgent'; overlapMs: number }
  | { do: 'usurpAgent'; overlapMs: number }
  | { do: 'stallLauncher'; forMs: number; downMs: number };

/** What befalls the control plane. */
export type ControlTrouble =
  | { do: 'killOperator' | 'endOperator'; downMs: number }
  | { do: 'freezeOperator'; forMs: number }
  | { do: 'killApi'; downMs: number }
  | { do: 'freezeApi'; forMs: number };

/** Who acts: each lane does one thing after the other, and no lane waits for another. */
export type Act =
  | { lane: 'edit'; act: Edit }
  | { lane: 'blow'; act: Blow }
  | { lane: 'agent'; act: AgentTrouble }
  | { lane: 'control'; act: ControlTrouble };

/** One act, and when it begins, counted from the start of the history. */
export type Timed = Act & { atMs: number };

type PowerState = 'Running' | 'Stopped' | 'Paused';
type RestartPolicy = 'Always' | 'OnFailure' | 'Never';

/** The disk that is added to VMs and taken away. */
export const addedDisk = 'more';

/** Names that VMs have; a deleted one is taken again. */
export const names: readonly [string, ...string[]] = ['ada', 'bob', 'cleo', 'dan', 'eve'];

/** The VMs that have a TPM. */
export const withTpm: readonly [string, ...string[]] = ['dan', 'eve'];

const everyMs = { edit: 300, blow: 2_000, agent: 5_000, control: 20_000 };

/**
 * Everything that happens to the stack in `minutes`, in the order of its time. Pure: the same seed gives the same schedule. An
 * agent is mostly hit while it works: shortly after an edit.
 */
export const scheduleOf = (seed: number, minutes: number): Timed[] => {
  const endMs = minutes * 60_000;
  // A lane of its own for each: what one lane draws does not change what another does.
  const [edits, blows, agents, control] = [chanceOf(seed), chanceOf(seed ^ 0x9e3779b9), chanceOf(seed ^ 0x85ebca6b), chanceOf(seed ^ 0xc2b2ae35)];
  const editing = times(edits, everyMs.edit, endMs).map((atMs, at): Timed & { lane: 'edit' } => ({ atMs, lane: 'edit', act: at < names.length ? firstEdit(edits, at) : edit(edits) }));
  const nearAnEdit = (atMs: number): number => {
    if (agents.next() < 0.3) return atMs;
    const next = editing.find((each) => each.atMs >= atMs);
    return next ? next.atMs + agents.between(0, 700) : atMs;
  };
  const all: Timed[] = [
    ...editing,
    ...times(blows, everyMs.blow, endMs).map((atMs): Timed => ({ atMs, lane: 'blow', act: blow(blows) })),
    ...times(agents, everyMs.agent, endMs).map((atMs): Timed => ({ atMs: nearAnEdit(atMs), lane: 'agent', act: agentTrouble(agents) })),
    ...times(control, everyMs.control, endMs).map((atMs): Timed => ({ atMs, lane: 'control', act: controlTrouble(control) })),
  ];
  return all.toSorted((a, b) => a.atMs - b.atMs);
};

const times = (chance: Chance, averageMs: number, endMs: number): number[] => {
  const found: number[] = [];
  for (let atMs = chance.pauseMs(averageMs); atMs < endMs; atMs += Math.max(1, chance.pauseMs(averageMs))) found.push(atMs);
  return found;
};

const create = (chance: Chance, name: string): Edit => ({
  do: 'create', name, powerState: chance.oneOf(['Running', 'Running', 'Running', 'Paused', 'Stopped']), restartPolicy: chance.oneOf(['Always', 'OnFailure', 'Never']), graceSeconds: chance.between(0, 3),
});

const firstEdit = (chance: Chance, at: number): Edit => create(chance, names[at] ?? names[0]);

const edit = (chance: Chance): Edit => {
  const name = chance.oneOf(names);
  const what = chance.oneOf(['delete', 'delete', 'create', 'create', 'create', 'create', 'power', 'power', 'power', 'power', 'power', 'restart', 'policy', 'memory', 'disk', 'disk', 'nic', 'nic', 'stopMode', 'touch']);
  switch (what) {
    case 'delete':
      return { do: what, name };
    case 'create':
      return create(chance, name);
    case 'power':
      return { do: what, name, to: chance.oneOf(['Running', 'Running', 'Running', 'Stopped', 'Stopped', 'Paused']) };
    case 'restart':
      return { do: what, name, token: `t${chance.between(1, 9_999)}` };
    case 'policy':
      return { do: what, name, to: chance.oneOf(['Always', 'OnFailure', 'Never']) };
    case 'memory':
      return { do: what, name, size: chance.oneOf(['32Mi', '48Mi']) };
    case 'disk':
    case 'nic':
      return { do: what, name, has: chance.oneOf([true, false]) };
    case 'stopMode':
      return { do: what, name, mode: chance.oneOf(['Graceful', 'Force']) };
    case 'touch':
      return { do: what, name, hostname: `host-${chance.between(1, 99)}` };
  }
};

const blow = (chance: Chance): Blow => {
  const name = chance.oneOf(names);
  const what = chance.oneOf(['killQemu', 'killQemu', 'killSupervisor', 'killTpm', 'guestOff', 'guestReboot', 'freezeQemu']);
  if (what === 'killTpm') return { do: what, name: chance.oneOf(withTpm) };
  return what === 'freezeQemu' ? { do: what, name, forMs: chance.between(200, 6_000) } : { do: what, name };
};

const agentTrouble = (chance: Chance): AgentTrouble => {
  const what = chance.oneOf(['killAgent', 'killAgent', 'killAgent', 'endAgent', 'freezeAgent', 'doubleAgent', 'usurpAgent', 'usurpAgent', 'stallLauncher', 'stallLauncher', 'stallLauncher']);
  switch (what) {
    case 'killAgent':
    case 'endAgent':
      return { do: what, downMs: chance.between(0, 1_500) };
    case 'freezeAgent':
      return { do: what, forMs: chance.between(100, 5_000) };
    case 'doubleAgent':
    case 'usurpAgent':
      return { do: what, overlapMs: chance.between(0, 3_000) };
    case 'stallLauncher':
      return { do: what, forMs: chance.between(1_000, 6_000), downMs: chance.between(0, 500) };
  }
};

const controlTrouble = (chance: Chance): ControlTrouble => {
  const what = chance.oneOf(['killOperator', 'endOperator', 'endOperator', 'freezeOperator', 'killApi', 'freezeApi']);
  switch (what) {
    case 'killOperator':
    case 'endOperator':
    case 'killApi':
      return { do: what, downMs: chance.between(0, 3_000) };
    case 'freezeOperator':
    case 'freezeApi':
      return { do: what, forMs: chance.between(500, 12_000) };
  }
};

/** One act in a line, as it is printed. Pure. */
export const shownAct = ({ act }: Act): string => {
  const { do: what, ...rest } = act;
  return [what, ...Object.entries(rest).map(([key, value]) => (key === 'name' ? String(value) : `${key}=${value}`))].join(' ');
};
