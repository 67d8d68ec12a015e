import type { VirtualMachine } from '#crds/v1alpha1/virtualmachine.ts';
import type { VmFacts } from './facts.ts';
import { machineUidOf } from './identity.ts';
import type { VmHands } from './reconcile.ts';
import { cloudInitOf, type SecretFact, secretNames } from './secrets.ts';

/**
 * Makes the function that reads the Secrets of a bound VM whose guest has not been given them yet, up to the first that is not as it must
 * be. That one is read first the next time: however many VMs wait, and for however many Secrets, each look at one costs one request.
 */
export const makeSecretReads = ({ fleet, secret }: Pick<VmHands, 'fleet' | 'secret'>) => {
  // What is lost with the process costs some requests.
  const troubled = new Map<string, string>();

  return async (vm: VirtualMachine): Promise<VmFacts['secrets']> => {
    const { metadata: { namespace, name, uid, deletionTimestamp }, spec, status: { nodeName } } = vm;
    const names = secretNames(spec);
    const first = troubled.get(uid);
    troubled.delete(uid);
    if (names.length === 0 || nodeName === undefined || deletionTimestamp !== undefined || fleet.report(nodeName, machineUidOf(vm))?.seeded) return undefined;
    const facts = new Map<string, SecretFact>(names.map((each) => [each, { is: 'unread' }]));
    for (const each of names.toSorted((a, b) => Number(b === first) - Number(a === first))) {
      facts.set(each, await secret(namespace, each));
      const seed = cloudInitOf(name, spec, facts);
      if (seed.is !== 'waits') continue;
      troubled.set(uid, each);
      break;
    }
    return facts;
  };
};
