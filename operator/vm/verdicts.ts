import type { Verdict } from '#crds/v1alpha1/condition.ts';
import { partOf } from '#crds/v1alpha1/reasons.ts';
import type { VmFacts } from './facts.ts';
import type { Standing } from './status.ts';

/** What a silent node last said may be long over. Pure. */
export const ioErrorVerdict = ({ link, report }: VmFacts): Verdict[] =>
  report?.ioError === undefined || link === 'silent' ? [] : [{ type: 'IOError', status: 'True', ...report.ioError }];

/** Protected, and deleted all the same where no policy is asked (with its namespace, or with the CRD): it runs on until the field is cleared. Pure. */
export const protectedVerdict = ({ vm }: VmFacts): Verdict[] =>
  vm.metadata.deletionTimestamp === undefined ? [] : [{ type: 'DeletionProtected', status: 'True', reason: 'DeletionProtected', message: 'deleted, but spec.deletionProtection is true; nothing is torn down' }];

/** Whether its disks and its interfaces are there. Pure. */
export const partVerdicts = (standing: Standing, { report }: VmFacts): Verdict[] => {
  const part = (type: 'DisksReady' | 'NetworkReady'): Verdict => {
    if (partOf(standing.reason) === type && report?.ioError === undefined) return { type, status: 'False', reason: standing.reason, message: standing.message };
    const started = report !== undefined && report.state !== 'preparing';
    return started
      ? { type, status: 'True', reason: type, message: type === 'DisksReady' ? 'all disks are there' : 'all interfaces are connected' }
      : { type, status: 'Unknown', reason: 'Preparing', message: 'not reported yet' };
  };
  return [part('DisksReady'), part('NetworkReady')];
};

/** Where it is, and whether that node's agent is heard. Pure. */
export const linkVerdicts = ({ vm, link }: VmFacts): Verdict[] => {
  const node = vm.status.nodeName ?? '';
  const connected: Verdict = link === 'silent'
    ? { type: 'AgentConnected', status: 'False', reason: 'NodeUnreachable', message: `the agent of ${node} is silent` }
    : { type: 'AgentConnected', status: 'True', reason: 'Connected', message: `the agent of ${node} is connected` };
  return [{ type: 'Scheduled', status: 'True', reason: 'Scheduled', message: `placed on ${node}` }, connected];
};
