import type { Clock } from '#crds/kit/clock.ts';
import { asFault, messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { type Desire, holdingDigest, type Tombstone } from '#crds/wire/judge.ts';
import { type Doomed, maxFrameBytes, protocolRange, type ToOperator } from '#crds/wire/messages.ts';
import type { ObservedVm } from '#crds/wire/observed.ts';
import type { Guests } from './guest/driver.ts';
import type { Hypervisor } from './hypervisor/driver.ts';
import type { ImageStore } from './image/store.ts';
import type { Dial } from './link/dial.ts';
import { type LinkTimes, makeLink } from './link/link.ts';
import type { Network } from './network/driver.ts';
import { makeNodeFacts, type NodeIdentity } from './nodefacts.ts';
import type { Storage } from './storage/driver.ts';
import { appliedOf } from './vm/change.ts';
import type { Hands } from './vm/hands.ts';
import { makeImageKeeper } from './vm/images.ts';
import { isDiskTrouble } from './vm/keeping.ts';
import { makeMisunderstood } from './vm/misunderstood.ts';
import { openLedger } from './vm/ledger.ts';
import type { IdRange } from './vm/places.ts';
import { reportRemains } from './vm/report.ts';
import type { Shelf } from './vm/shelf.ts';
import { within } from './vm/within.ts';
import { startWorker, type Worker } from './vm/worker.ts';
import { makeDiskKeeper } from './vm/keptdisks.ts';
import { toldDisks } from './vm/retain.ts';

/** Everything that an agent is made of; a simulated one gets fakes for the drivers and a shelf in memory. */
export type AgentParts = {
  agentId: string;
  node: NodeIdentity;
  unixIds: IdRange;
  hypervisor: Hypervisor;
  network: Network;
  storage: Storage;
  images: ImageStore;
  guests: (changed: (uid: string) => void, signal: AbortSignal) => Guests;
  shelf: Shelf;
  dial: Dial;
  /** The credential, read anew for each connection. */
  token: () => Promise<string>;
  clock: Clock;
  /** Milliseconds of the node's monotonic clock, which goes on over restarts of the agent. */
  hostMs: () => number;
  /** A fresh random id. */
  newId: () => string;
  /** A number in [0, 1). */
  chance: () => number;
  log: Log;
  times?: LinkTimes;
};

/** A running agent. */
export type Agent = {
  /** Whether the operator has welcomed it and knows what it holds. */
  joined: () => boolean;
  /** The node may have changed (the accelerator is proved): every VM is looked at, and facts are told when they differ. */
  lookAgain: () => void;
  /** Ends the agent: it says good-bye and finishes or cuts what is under way. Guests go on. Resolves within `stopMs`. */
  stop: () => Promise<void>;
};

const stopMs = 10_000;

const noteMs = 5_000;

/**
 * Starts an agent: it reads its ledger, takes up every VM in it at once, and then looks for its operator. Nothing waits for
 * the operator, and no VM waits for another. Faults: LedgerUnreadable.
 */
export const startAgent = async (parts: AgentParts): Promise<Agent> => {
  const { hypervisor, network, storage, images, clock, log } = parts;
  const stopping = new AbortController();
  const ledger = await openLedger(parts.shelf, parts.unixIds, stopping.signal);
  for (const { reason, message } of ledger.troubles()) log.error({ reason }, message);
  const workers = new Map<string, Worker>();
  const foreign = makeMisunderstood(parts.node.agentVersion);
  const reports = new Map<string, ObservedVm>([...ledger.remains()].map(([uid, why]) => [uid, reportRemains(uid, why)]));

  const facts = makeNodeFacts(parts, ledger, stopping.signal);
  const tellFacts = (): void => {
    const news = link.joined() ? facts.news() : undefined;
    if (news) link.say({ type: 'facts', facts: news });
  };
  let refused = false;
  let looking: Promise<void> | undefined;
  /** Looks after the node's disk. Intents that were refused while it could not be written are asked for again when it can: by telling anew what is held. */
  const lookAfterNode = async (): Promise<void> => {
    await Promise.all([ledger.tend(stopping.signal), facts.measure()]);
    tellFacts();
    if (!refused || ledger.troubles().some(({ reason }) => isDiskTrouble(reason))) return;
    refused = false;
    link.relist();
  };

  const hands: Hands = {
    hypervisor, network, storage, images, ledger, log, guests: parts.guests((uid) => workers.get(uid)?.poke(), stopping.signal),
    now: clock.now, hostMs: parts.hostMs, newId: parts.newId, chance: parts.chance,
    report: (observed) => {
      reports.set(observed.uid, observed);
      link.say({ type: 'report', observed: foreign.told(observed) });
    },
    absent: (uid) => {
      reports.delete(uid);
      log.info({ uid }, 'VM ended for ever');
      link.say(absent('vm', uid));
    },
    keptChanged: tellFacts,
  };
  const work = (uid: string, holdsPorts = false): void => {
    const known = workers.get(uid);
    if (known) return known.poke();
    const worker = startWorker(hands, clock, uid, holdsPorts, stopping.signal);
    workers.set(uid, worker);
    void worker.done.then(() => workers.delete(uid));
  };
  const keeper = makeImageKeeper({
    ledger, images, clock, log, chance: parts.chance,
    changed: (uid) => {
      const observed = images.observe(uid);
      if (observed) link.say({ type: 'report', observed });
      for (const [vm, entry] of ledger.entries()) {
        if (entry.kind === 'vm' && entry.desired?.disks.some(({ imageUid }) => imageUid === uid)) workers.get(vm)?.poke();
      }
    },
    absent: (uid) => link.say({ type: 'absent', kind: 'image', uid }),
  }, stopping.signal);
  const disks = makeDiskKeeper({
    ledger, storage, clock, log, chance: parts.chance,
    absent: (uid) => {
      link.say({ type: 'absent', kind: 'disk', uid });
      tellFacts();
    },
  }, stopping.signal);
  /** What the ledger says anew of an object is done. */
  const takeUp = (uid: string): void => {
    const kind = ledger.entries().get(uid)?.kind;
    if (kind === 'image') keeper.take(uid);
    else if (kind === 'disk') disks.take(uid);
    else work(uid);
  };
  /** The end of a VM, with the disks that have outlived it. */
  const absent = (kind: Doomed, uid: string): Extract<ToOperator, { type: 'absent' }> =>
    ({ type: 'absent', kind, uid, ...(kind === 'vm' ? { kept: toldDisks(ledger.disks()).filter(({ owner }) => owner.vmUid === uid).slice(0, 64) } : {}) });

  const hear = async (command: Desire | Tombstone): Promise<void> => {
    const { uid, kind } = command.type === 'desire' ? command.object : command;
    const last = foreign.clear(uid) ? reports.get(uid) : undefined;
    if (last) link.say({ type: 'report', observed: last });
    try {
      const verdict = command.type === 'desire' ? await ledger.accept(command) : await ledger.doom(command);
      switch (verdict.is) {
        case 'absent':
          return link.say(absent(kind, uid));
        case 'refuse':
          return log.warn({ uid, why: verdict.why }, `${command.type} refused`);
        case 'accept':
        case 'known':
          return takeUp(uid);
      }
    } catch (thrown) {
      const { code, message } = asFault(thrown, 'LedgerFailed', `keeping the ${command.type} for ${uid}`);
      log.error({ uid, code, err: message }, `${command.type} not kept`);
      refused = true;
      tellFacts();
    }
  };

  const link = makeLink({
    dial: parts.dial, token: parts.token, clock, chance: parts.chance, log, hear,
    hello: () => ({ type: 'hello', protocol: protocolRange, capabilities: [], agentId: parts.agentId, leaderEpochSeen: ledger.memory().leaderEpochSeen, maxFrameBytes, facts: facts.now() }),
    held: ledger.held,
    heldDigest: () => holdingDigest(ledger.held()),
    *snapshot(): Iterable<ToOperator> {
      yield { type: 'facts', facts: facts.told() };
      for (const observed of images.list()) if (ledger.entries().has(observed.uid)) yield { type: 'report', observed };
      for (const observed of reports.values()) yield { type: 'report', observed: foreign.told(observed) };
    },
    misunderstood: (uid, why) => link.say({ type: 'report', observed: foreign.note(uid, why, reports.get(uid)) }),
    // When the epoch can not be written (the disk hangs) the session goes on with reports; commands wait until it is written.
    welcomed: (leaderEpoch) => within(noteMs, stopping.signal, 'keeping the epoch of the leader', () => ledger.noteLeader(leaderEpoch)).catch((thrown: unknown) => {
      log.error({ leaderEpoch, err: messageOf(thrown) }, 'the epoch of the leader can not be kept; its commands are refused until it can');
    }),
    beat: () => {
      looking ??= lookAfterNode().catch((thrown: unknown) => log.warn({ err: thrown }, 'looking after the node failed')).finally(() => { looking = undefined; });
    },
  }, parts.times);

  // Before any worker runs, every VM with a recorded run gets its ports; one whose machine turns out to be gone gives them back.
  const started = [...ledger.entries().values()].filter((entry) => entry.kind === 'vm').filter(({ run, desired }) => run !== null && desired !== null);
  for (const entry of started) {
    const { uid } = entry;
    for (const { name, mac, user: { forwards } } of appliedOf(entry)?.interfaces ?? []) network.adopt({ uid, name, mac, forwards });
  }
  const watching = hypervisor.watch((uid) => workers.get(uid)?.poke());
  const adopted = new Set(started.map(({ uid }) => uid));
  for (const [uid, { kind }] of ledger.entries()) {
    if (kind === 'vm') work(uid, adopted.has(uid));
    else takeUp(uid);
  }
  log.info({ vms: workers.size, agentId: parts.agentId }, 'agent started');
  await facts.measure();
  const linked = link.run(stopping.signal);

  return {
    joined: link.joined,
    lookAgain: () => {
      tellFacts();
      for (const worker of workers.values()) worker.poke();
    },
    stop: async () => {
      stopping.abort(new Error('the agent ends'));
      watching[Symbol.dispose]();
      keeper[Symbol.dispose]();
      const limit = new AbortController();
      await Promise.race([
        Promise.all([linked, keeper.done(), disks.done(), ...[...workers.values()].map(({ done }) => done)]),
        clock.sleep(stopMs, limit.signal).catch(() => {}),
      ]);
      limit.abort();
      log.info({}, 'agent ended; guests go on');
    },
  };
};
