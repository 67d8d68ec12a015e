import { asFault, Fault } from '#crds/kit/fault.ts';
import { patience } from '#crds/kit/patience.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import type { Shelf } from './shelf.ts';

type Trouble = NodeFacts['troubles'][number];

/** Whether the ledger can keep what it is told, and what is wrong when it can not. */
export type Keeping = {
  /** Writes what must be written; on a full disk the ballast makes room for it. */
  must: (job: () => Promise<void>) => Promise<void>;
  /** Writes a new intent, or refuses it: none is acknowledged that might get lost. Faults: LedgerFull, LedgerReadOnly, LedgerFailed. */
  may: (what: string, job: () => Promise<void>) => Promise<void>;
  /** Looks whether something can be written and the ballast is there. Returns within some seconds, also when the disk hangs. */
  tend: (signal: AbortSignal) => Promise<void>;
  trouble: () => Trouble | undefined;
};

const tendMs = 5_000;
const hung = 'the disk of the state folder does not answer; new intents wait, guests go on as far as they need no disk';

const diskTroubles: ReadonlySet<string> = new Set(['LedgerFull', 'LedgerReadOnly', 'LedgerFailed', 'StorageHung']);

/** Whether a trouble says that the disk of the ledger can not be written now. */
export const isDiskTrouble = (reason: string): boolean => diskTroubles.has(reason);

/** Watches over the writes of a ledger. What a write tells of the disk counts at once; `tend` finds out when it is well again. */
export const makeKeeping = (shelf: Shelf, patienceMs = tendMs): Keeping => {
  let trouble: Trouble | undefined;
  let looking: Promise<void> | undefined;
  let filling: Promise<boolean> | undefined;

  const note = (thrown: unknown): Fault => {
    const fault = asFault(thrown, 'LedgerFailed', 'writing the ledger');
    trouble = { reason: fault.code, message: `${fault.message}; new intents are refused, guests go on` };
    return fault;
  };
  const noRoom = (): void => {
    trouble = { reason: 'LedgerFull', message: 'too little space is left for the agent to keep new intents: they are refused, guests go on' };
  };
  // One at a time: on a slow disk many come while it is being written.
  const ballast = (): Promise<boolean> => (filling ??= shelf.ballast.keep().finally(() => { filling = undefined; }));
  const look = async (): Promise<void> => {
    try {
      // The ballast first: it may take the last free block, and then the probe has to fail.
      const room = await ballast();
      await shelf.probe();
      if (room) trouble = undefined;
      else noRoom();
    } catch (thrown) {
      note(thrown);
    }
  };

  return {
    must: async (job) => {
      try {
        await job();
      } catch (thrown) {
        const fault = note(thrown);
        if (fault.code !== 'LedgerFull' || !(await shelf.ballast.drop())) throw fault;
        await job();
      }
    },
    may: async (what, job) => {
      if (!(await ballast())) {
        noRoom();
        throw new Fault('LedgerFull', `${what} is not kept: no space is left for the agent's ledger`);
      }
      try {
        await job();
        trouble = undefined;
      } catch (thrown) {
        throw note(thrown);
      }
    },
    tend: async (signal) => {
      // While one look hangs, no second one is begun.
      looking ??= look().finally(() => { looking = undefined; });
      const late = Promise.withResolvers<'late'>();
      const limit = AbortSignal.any([signal, patience(patienceMs)]);
      limit.addEventListener('abort', () => late.resolve('late'), { once: true });
      if ((await Promise.race([looking, late.promise])) === 'late') trouble = { reason: 'StorageHung', message: hung };
    },
    trouble: () => trouble,
  };
};
