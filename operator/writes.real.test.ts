import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { operatorUser, readAudit, writesOf } from '#hack/bed/audit.ts';
import { kubectl } from '#hack/bed/kubectl.ts';
import { vmManifest } from '#hack/bed/objects.ts';
import { type Simulated, startSimulated } from '#hack/bed/simulated.ts';
import { until } from '#hack/bed/until.ts';
import { realTimes } from '#hack/sim/node.ts';

const quietMs = 120_000;

/** What the operator and an agent do while nothing is to be done: nothing; and how little when there is. Cases C01 and G02 of acceptance.md. */
describe('the operator', () => {
  let lab: Simulated;
  const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
  const said: string[] = [];
  const say = (_fields: object, sentence: string) => void said.push(sentence);
  /** What the operator has written so far. A TokenReview is a question: nothing of it is stored. */
  const writes = async () => writesOf(await readAudit(lab.cluster.audit), operatorUser)
    .map(({ verb, objectRef }) => ({ verb, resource: objectRef?.resource ?? '', name: objectRef?.name ?? '' })).filter(({ resource }) => resource !== 'tokenreviews');

  beforeAll(async () => {
    // The times of a real agent: several heartbeats and comparisons lie in two minutes.
    lab = await startSimulated({ times: realTimes, log: { debug: () => {}, info: say, warn: say, error: say } });
    await Promise.all(names.map((name) => lab.me.apply(vmManifest(name))));
    await Promise.all(names.map((name) => lab.me.vmIs(name, 'Ready=True Running')));
  }, 300_000);
  afterAll(async () => {
    await lab?.[Symbol.asyncDispose]();
  });

  test('C01: writes at most four times for a VM from its creation until it runs, and tells two events', async () => {
    // Events are told after the status, and nobody waits for them; one that is told again would be a patch.
    const eventsOf = (name: string, all: Awaited<ReturnType<typeof writes>>) => all.filter((each) => each.resource === 'events' && each.name.startsWith(`${name}.`)).length;
    const made = await until('the events', async () => {
      const all = await writes();
      return names.every((name) => eventsOf(name, all) >= 2) && all;
    }, 60_000);
    const counts = names.map((name) => made.filter((each) => each.resource === 'virtualmachines' && each.name === name).length);
    expect(Math.max(...counts)).toBeLessThanOrEqual(4);
    expect(Math.min(...counts)).toBeGreaterThanOrEqual(2);
    expect(names.map((name) => eventsOf(name, made))).toEqual(names.map(() => 2));
  });

  test('C01, G02: writes nothing for two minutes in which nothing happens, agent and operator say nothing, and after them `kubectl diff` is empty', async () => {
    const file = join(lab.cluster.dir, 'vm.json');
    await writeFile(file, JSON.stringify({ ...vmManifest('git'), metadata: { name: 'git' } }));
    const git = (...args: string[]) => kubectl(lab.cluster, args);
    await git('apply', '-f', file);
    await lab.me.vmIs('git', 'Ready=True Running');
    for (const powerState of ['Stopped', 'Running']) {
      await git('patch', 'vm', 'git', '--type=merge', '-p', JSON.stringify({ spec: { powerState, stop: { mode: 'Force' } } }));
      await lab.me.vmIs('git', `Ready=True ${powerState}`, 30_000);
    }
    await git('apply', '-f', file);
    await lab.me.vmIs('git', 'Ready=True Running');
    const lines = () => lab.operator().lines.filter(({ level }) => level !== 'debug');
    const settled = { now: -1 };
    // What a node takes is gathered for ten seconds before it is written.
    await until('the last write of what was done', async () => {
      const before = settled.now;
      settled.now = (await writes()).filter(({ resource }) => resource !== 'leases').length;
      const end = performance.now() + 12_000;
      await until('twelve seconds to pass', () => performance.now() > end, quietMs);
      return settled.now === before;
    }, quietMs);

    const beganMs = performance.now();
    const before = { writes: (await writes()).length, versions: await versions(), lines: lines().length, said: said.length };
    await until('two minutes to pass', () => performance.now() > beganMs + quietMs, 2 * quietMs);
    // A node's life is told by its Lease, as the lead is.
    const since = (await writes()).slice(before.writes);
    const passedMs = performance.now() - beganMs;
    expect(since.filter(({ resource }) => resource !== 'leases')).toEqual([]);
    expect(since.filter(({ name }) => name === 'node-node-1').length).toBeLessThanOrEqual(passedMs / 9_000);
    expect(await versions()).toEqual(before.versions);
    expect([lines().slice(before.lines).map(({ sentence }) => sentence), said.slice(before.said)]).toEqual([[], []]);
    expect(await git('diff', '-f', file)).toBe('');
  }, 600_000);
  const versions = () => Promise.all([...names, 'git'].map(async (name) => (await lab.me.vm(name)).metadata.resourceVersion));

  test('is denied nothing: what would be refused is not tried without end', async () => {
    const denied = (await readAudit(lab.cluster.audit)).filter(({ user: who, responseStatus }) => who.username === operatorUser && responseStatus?.code === 403);
    expect(denied).toEqual([]);
  });
});
