import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { until } from '#hack/bed/until.ts';
import type { Hypervisor, MachineSpec, RunEnd } from './driver.ts';

/** A hypervisor under test. */
export type HypervisorBench = {
  hypervisor: Hypervisor;
  /** What a start of a machine needs, its disk made. */
  spec: (uid: string) => Promise<MachineSpec>;
  /** Another driver over the same machines, as after a restart of the agent. */
  reopen: () => Promise<Hypervisor>;
  /** The guest, which must run, powers itself off. */
  powerOff: (uid: string) => Promise<void>;
  /** The machine does not answer any more, and does not end either. */
  hang: (uid: string) => Promise<void>;
  /** Spoils starts: that of the spec that is given back fails, until it is mended. */
  spoiled: (spec: MachineSpec) => MachineSpec;
  mended: (spec: MachineSpec) => MachineSpec;
  /** Starts a machine whose launcher stands still before it has the lock, so that the start is given up. `thaw` lets it go on, and returns when it has made its machine or has ended. */
  stall: (spec: MachineSpec) => Promise<{ thaw: () => Promise<void> }>;
  close: () => Promise<void>;
};

const limitMs = 120_000;

/** What every hypervisor keeps. */
export const hypervisorContract = (name: string, make: () => Promise<HypervisorBench>): void => {
  describe(`hypervisor contract: ${name}`, () => {
    let bench: HypervisorBench;
    let uid: string;
    const signal = () => AbortSignal.timeout(limitMs);
    const gone = (hypervisor = bench.hypervisor): Promise<{ last?: RunEnd }> => until('the machine is gone', async () => {
      const sight = await hypervisor.observe(uid, signal());
      return sight.is === 'gone' && sight;
    }, limitMs);
    const started = async (): Promise<MachineSpec> => {
      const spec = await bench.spec(uid);
      await bench.hypervisor.start(spec, signal());
      return spec;
    };
    beforeEach(async () => {
      bench = await make();
      uid = randomUUID();
    });
    afterEach(() => bench.close());

    test('what was never started is gone, and nobody knows of an end', async () => {
      expect(await bench.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
    });

    test('it tells what it can do', () => {
      expect(bench.hypervisor.capabilities()).toEqual({
        version: expect.stringMatching(/^\d+\.\d+\.\d+$/), accelerators: expect.arrayContaining(['tcg']),
        features: expect.arrayContaining(['arch:amd64']), cpuModels: expect.objectContaining({ amd64: expect.arrayContaining(['max']) }),
      });
    });

    test('a started machine waits before its first instruction, and says what it is', async () => {
      const { startId } = await started();
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({
        is: 'present', startId, guest: 'prelaunch', pid: expect.any(Number),
        facts: { type: expect.stringMatching(/^pc-q35-/), cpuModel: expect.any(String), accelerator: expect.stringMatching(/^(kvm|tcg)$/), cpus: 2, memoryMiB: 32 },
      });
    });

    test('it runs, pauses and runs again; each verb may be repeated', async () => {
      await started();
      const { hypervisor } = bench;
      for (const [verb, guest] of [['resume', 'running'], ['resume', 'running'], ['pause', 'paused'], ['pause', 'paused'], ['resume', 'running']] as const) {
        await hypervisor[verb](uid, signal());
        expect(await hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', guest });
      }
    });

    test('a second start is refused and leaves the first alone', async () => {
      const first = await started();
      await bench.hypervisor.resume(uid, signal());
      await expect(bench.hypervisor.start({ ...first, startId: randomUUID() }, signal())).rejects.toMatchObject({ code: 'AlreadyRunning' });
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId: first.startId, guest: 'running' });
    });

    test('of two starts at the same time one succeeds', async () => {
      const spec = await bench.spec(uid);
      const ids = [randomUUID(), randomUUID()] as const;
      const results = await Promise.allSettled(ids.map((startId) => bench.hypervisor.start({ ...spec, startId }, signal())));
      expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      const winner = ids[results.findIndex(({ status }) => status === 'fulfilled')];
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId: winner });
    });

    test('a guest that listens nowhere has taken no connection; without a machine nobody can tell', async () => {
      await expect(bench.hypervisor.established(uid, { address: '127.0.0.1', port: 1 }, signal())).rejects.toMatchObject({ code: 'NotRunning' });
      await started();
      await bench.hypervisor.resume(uid, signal());
      expect(await bench.hypervisor.established(uid, { address: '127.0.0.1', port: 1 }, signal())).toBe(false);
    });

    test('killed while it runs: gone, its last run told, killed by a signal', async () => {
      const { startId } = await started();
      await bench.hypervisor.resume(uid, signal());
      await bench.hypervisor.kill(uid, signal());
      expect((await gone()).last).toMatchObject({ startId, cause: 'crashed', signal: 'SIGKILL', ran: true });
      await bench.hypervisor.kill(uid, signal());
    });

    test('killed before its first instruction: it has not run', async () => {
      await started();
      await bench.hypervisor.kill(uid, signal());
      expect((await gone()).last).toMatchObject({ cause: 'crashed', ran: false });
    });

    test('a guest that powers itself off is told at once, as such', async () => {
      await started();
      const told = Promise.withResolvers<void>();
      using _watching = bench.hypervisor.watch((changed) => changed === uid && told.resolve());
      await bench.hypervisor.resume(uid, signal());
      await bench.powerOff(uid);
      await told.promise;
      expect((await gone()).last).toMatchObject({ cause: 'guest', code: 0, ran: true });
    });

    test('a machine that is gone can be started anew; then the new run counts', async () => {
      const first = await started();
      await bench.hypervisor.kill(uid, signal());
      await gone();
      const startId = randomUUID();
      await bench.hypervisor.start({ ...first, startId }, signal());
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId, guest: 'prelaunch' });
    });

    test('it keeps the type of machine that it is told to have', async () => {
      const spec = await bench.spec(uid);
      await bench.hypervisor.start({ ...spec, type: 'pc-q35-6.2' }, signal());
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', facts: { type: 'pc-q35-6.2' } });
    });

    test('one that does not answer is unknown, and can still be ended', async () => {
      await started();
      await bench.hypervisor.resume(uid, signal());
      await bench.hang(uid);
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'unknown', why: expect.any(String) });
      await bench.hypervisor.kill(uid, signal());
      expect((await gone()).last).toMatchObject({ cause: 'crashed', ran: true });
    });

    test('after a restart of the agent the machine is as before, and can be run and ended', async () => {
      const { startId } = await started();
      await bench.hypervisor.resume(uid, signal());
      const next = await bench.reopen();
      expect(await next.observe(uid, signal())).toMatchObject({ is: 'present', startId, guest: 'running' });
      await next.kill(uid, signal());
      expect((await gone(next)).last).toMatchObject({ startId, ran: true });
    });

    test('a start that fails says why, leaves nothing that runs, and can be tried again', async () => {
      const spec = await bench.spec(uid);
      await expect(bench.hypervisor.start(bench.spoiled(spec), signal())).rejects.toMatchObject({ code: 'StartFailed', message: expect.stringMatching(/spoiled/) });
      expect((await gone()).last).toMatchObject({ ran: false });
      const startId = randomUUID();
      await bench.hypervisor.start(bench.mended({ ...spec, startId }), signal());
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId });
    });

    test('a start that was given up comes when its launcher goes on', async () => {
      const spec = await bench.spec(uid);
      const { thaw } = await bench.stall(spec);
      expect(await bench.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
      await thaw();
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId: spec.startId });
    });

    test('a start that was taken back, twice, never comes, and the next one does', async () => {
      const spec = await bench.spec(uid);
      const { thaw } = await bench.stall(spec);
      await bench.hypervisor.revoke(uid, spec.startId, signal());
      await bench.hypervisor.revoke(uid, spec.startId, signal());
      await thaw();
      expect(await bench.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
      const startId = randomUUID();
      await bench.hypervisor.start({ ...spec, startId }, signal());
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId });
    });

    test('a start that was taken back does not hide how the one after it ended', async () => {
      const spec = await bench.spec(uid);
      const { thaw } = await bench.stall(spec);
      await bench.hypervisor.revoke(uid, spec.startId, signal());
      const startId = randomUUID();
      await bench.hypervisor.start({ ...spec, startId }, signal());
      await bench.hypervisor.resume(uid, signal());
      await bench.powerOff(uid);
      await gone();
      await thaw();
      expect(await gone()).toMatchObject({ last: { startId, cause: 'guest', ran: true } });
    });

    test('a start of what was forgotten never comes', async () => {
      const { thaw } = await bench.stall(await bench.spec(uid));
      await bench.hypervisor.forget(uid, signal());
      await thaw();
      expect(await bench.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
    });

    test('a start whose machine is there is not taken back; one that was never made is, without effect', async () => {
      await bench.hypervisor.revoke(uid, randomUUID(), signal());
      const { startId } = await started();
      await expect(bench.hypervisor.revoke(uid, startId, signal())).rejects.toMatchObject({ code: 'StillThere' });
      expect(await bench.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', startId });
    });

    test('what is gone is forgotten, twice; what is there is not', async () => {
      await started();
      await expect(bench.hypervisor.forget(uid, signal())).rejects.toMatchObject({ code: 'StillThere' });
      await bench.hypervisor.kill(uid, signal());
      await gone();
      await bench.hypervisor.forget(uid, signal());
      await bench.hypervisor.forget(uid, signal());
      expect(await bench.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
    });

    test('verbs on a machine that is not there say so', async () => {
      for (const verb of ['resume', 'pause', 'powerdown'] as const) {
        await expect(bench.hypervisor[verb](uid, signal())).rejects.toMatchObject({ code: 'NotRunning' });
      }
    });
  });
};
