import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { isReason } from '#crds/v1alpha1/reasons.ts';
import { codesIn, codesOf } from './faults.ts';

// Faults of the agent's own process, or ones that a caller turns into something else: no object is ever told of them.
const inward = new Set([
  'ArchitectureUnsupported', 'BadConfig', 'FolderFailed', 'HostUnreadable', 'NotRoot', 'StateLockFailed', 'StateLocked', // it does not start
  'DialFailed', 'DialRefused', 'NotLeader', 'TokenUnreadable', // no operator to tell
  'ChangeRefused', // becomes ChangesRefused with the change
  'GuestAgentFailed', // the guest has no agent: then it is asked nothing
]);

test('every fault that an agent may tell of an object is a reason of its conditions, with what to do about it', () => {
  const codes = codesOf(join(import.meta.dirname, '..', '..'), 'agent');
  expect(codes.size).toBeGreaterThan(40);
  const unknown = [...codes].filter(([code]) => !isReason(code) && !inward.has(code));
  expect(unknown).toEqual([]);
  expect([...inward].filter((code) => isReason(code) || (!codes.has(code) && code !== 'DialRefused' && code !== 'NotLeader'))).toEqual([]);
});

test('codes of every form are found', () => {
  expect(codesIn("throw new Fault('One', x); asFault(thrown, 'Two', 'doing'); const t = { reason: 'Three', message }; code === 'Four'")).toEqual(['One', 'Two', 'Three']);
});
