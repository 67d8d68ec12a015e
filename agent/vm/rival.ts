import type { DesiredForward } from '#crds/wire/desired.ts';
import { appliedOf } from './change.ts';
import type { Entry } from './entry.ts';

/** The VM that has one of these forwards already, and which; undefined when no VM of the ledger has. Pure. */
export const rivalOf = (forwards: readonly DesiredForward[], uid: string, entries: Iterable<Entry>): { vm: string; forward: DesiredForward } | undefined => {
  for (const entry of entries) {
    if (entry.kind !== 'vm' || entry.uid === uid || !entry.desired || entry.run === null) continue;
    const theirs = (appliedOf(entry) ?? entry.desired).interfaces.flatMap(({ user }) => user.forwards);
    const forward = forwards.find((mine) => theirs.some(({ hostPort, protocol }) => hostPort === mine.hostPort && protocol === mine.protocol));
    if (forward) return { vm: `${entry.desired.namespace}/${entry.desired.name}`, forward };
  }
  return undefined;
};
