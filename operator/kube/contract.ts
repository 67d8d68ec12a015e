import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { systemClock } from '#crds/kit/clock.ts';
import { quiet } from '#crds/kit/log.ts';
import { virtualMachineKind } from '#crds/v1alpha1/virtualmachine.ts';
import { until } from '#hack/bed/until.ts';
import { type Change, startInformer } from './informer.ts';
import { type Kube, KubeFault } from './kube.ts';
import { takeLease } from './lease.ts';
import { patchStatus, setFinalizers } from './patch.ts';
import { makeRecorder } from './events.ts';
import { leases, pathOf, resourceOf } from './resource.ts';

/** A server under test: VirtualMachine's CRD is installed, `namespace` exists and is empty. */
export type ContractBed = { kube: Kube; namespace: string; dispose: () => Promise<void> };

const vms = resourceOf(virtualMachineKind);
const finalizer = 'strato.dev/contract';
const meta = z.looseObject({ metadata: z.looseObject({ name: z.string(), namespace: z.string(), uid: z.string(), resourceVersion: z.string(), generation: z.number(), deletionTimestamp: z.string().optional() }) });
const list = z.object({ metadata: z.object({ resourceVersion: z.string(), continue: z.string().optional() }), items: z.array(meta) });

/** What the operator leans on in an API server. The fake and a real kube-apiserver both pass it. `make` may take minutes. */
export const kubeContract = (name: string, make: () => Promise<ContractBed>): void => {
  describe(`an API server: ${name}`, () => {
    let bed: ContractBed;
    const stop = new AbortController();
    beforeAll(async () => {
      bed = await make();
    }, 300_000);
    afterAll(async () => {
      stop.abort();
      await bed.dispose();
    }, 60_000);

    const vm = (vmName: string, extra: Record<string, unknown> = {}) => ({
      apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachine', metadata: { name: vmName, ...extra },
      spec: { cpu: { cores: 1 }, memory: { size: '64Mi' }, disks: [{ name: 'root', blank: {}, size: '64Mi' }] },
    });
    const path = (vmName?: string) => pathOf(vms, { namespace: bed.namespace, name: vmName });
    const create = async (vmName: string, extra?: Record<string, unknown>) => meta.parse(await bed.kube.request('POST', path(), { body: vm(vmName, extra) }));
    const read = async (vmName: string) => meta.parse(await bed.kube.request('GET', path(vmName)));
    const faultOf = async (work: Promise<unknown>): Promise<{ status: number; code: string }> => {
      try {
        await work;
      } catch (thrown) {
        if (thrown instanceof KubeFault) return { status: thrown.status, code: thrown.code };
        throw thrown;
      }
      throw new Error('it was expected to fail');
    };

    test('what is not there is 404 NotFound, what is there already 409 AlreadyExists', async () => {
      expect(await faultOf(read('nobody'))).toEqual({ status: 404, code: 'NotFound' });
      await create('twice');
      expect(await faultOf(create('twice'))).toEqual({ status: 409, code: 'AlreadyExists' });
    });

    test('an unknown field is refused, not dropped', async () => {
      const body = vm('unknown');
      expect((await faultOf(bed.kube.request('POST', path(), { body: { ...body, spec: { ...body.spec, colour: 'red' } } }))).status).toBe(400);
    });

    test('a new object has generation 1 and observedGeneration -1', async () => {
      expect(await create('fresh')).toMatchObject({ metadata: { generation: 1 }, status: { observedGeneration: -1 } });
    });

    test('a status patch raises the version and not the generation; null removes; a patch that changes nothing changes no version', async () => {
      const made = await create('status');
      const wrote = async (object: z.output<typeof meta>, status: unknown) => {
        const written = await patchStatus(bed.kube, vms, object, status);
        return written.is === 'written' ? meta.parse(written.object) : object;
      };
      const first = await wrote(made, { observedGeneration: 1, phase: 'Pending', nodeName: 'node-1' });
      expect([first.metadata.generation, first.metadata.resourceVersion === made.metadata.resourceVersion, first['status']]).toEqual([1, false, { observedGeneration: 1, phase: 'Pending', nodeName: 'node-1' }]);
      const second = await wrote(first, { observedGeneration: 1, phase: 'Running' });
      expect(second['status']).toEqual({ observedGeneration: 1, phase: 'Running' });
      const same = meta.parse(await bed.kube.request('PATCH', `${path('status')}/status`, { body: { status: { phase: 'Running' } }, contentType: 'application/merge-patch+json' }));
      expect(same.metadata.resourceVersion).toBe(second.metadata.resourceVersion);
    });

    test('a write to an older version is 409 Conflict, status and finalizers alike', async () => {
      const old = await create('stale');
      await patchStatus(bed.kube, vms, old, { observedGeneration: 1 });
      expect(await faultOf(patchStatus(bed.kube, vms, old, { observedGeneration: 2 }))).toEqual({ status: 409, code: 'Conflict' });
      expect(await faultOf(setFinalizers(bed.kube, vms, old, [finalizer]))).toEqual({ status: 409, code: 'Conflict' });
    });

    test('the main resource ignores status, the status resource ignores spec; spec raises the generation', async () => {
      await create('parts');
      const patch = async (sub: string, body: unknown) => meta.parse(await bed.kube.request('PATCH', `${path('parts')}${sub}`, { body, contentType: 'application/merge-patch+json' }));
      expect(await patch('', { status: { phase: 'Failed' }, spec: { powerState: 'Stopped' } })).toMatchObject({ metadata: { generation: 2 }, spec: { powerState: 'Stopped' }, status: { observedGeneration: -1 } });
      expect(await patch('/status', { status: { phase: 'Failed' }, spec: { powerState: 'Paused' } })).toMatchObject({ metadata: { generation: 2 }, spec: { powerState: 'Stopped' }, status: { phase: 'Failed' } });
    });

    test('a finalizer holds an object that is being deleted; its removal ends it', async () => {
      const made = await create('held', { finalizers: [finalizer] });
      await bed.kube.request('DELETE', path('held'));
      const dying = await read('held');
      expect([typeof dying.metadata.deletionTimestamp, dying.metadata.uid]).toEqual(['string', made.metadata.uid]);
      await setFinalizers(bed.kube, vms, { metadata: { ...dying.metadata, finalizers: [finalizer] } }, []);
      expect(await faultOf(read('held'))).toEqual({ status: 404, code: 'NotFound' });
    });

    test('lists come in pages', async () => {
      for (const each of ['page-a', 'page-b', 'page-c']) await create(each, { labels: { paged: 'yes' } });
      const names: string[] = [];
      let next: string | undefined;
      do {
        const answer = list.parse(await bed.kube.request('GET', path(), { query: { labelSelector: 'paged=yes', limit: 2, continue: next } }));
        expect(answer.items.length).toBeLessThanOrEqual(2);
        names.push(...answer.items.map((item) => item.metadata.name));
        next = answer.metadata.continue;
      } while (next !== undefined && next !== '');
      expect(names).toEqual(['page-a', 'page-b', 'page-c']);
    });

    test('a watch at a version from the future is accepted and stays silent, while one of now speaks', async () => {
      const now = list.parse(await bed.kube.request('GET', path(), { query: { limit: 1 } })).metadata.resourceVersion;
      const over = new AbortController();
      const heard: string[] = [];
      const watch = async (who: string, resourceVersion: string): Promise<void> => {
        for await (const frame of bed.kube.stream(path(), { query: { resourceVersion }, signal: over.signal })) heard.push(`${who} ${z.object({ type: z.string() }).parse(frame).type}`);
      };
      const ends = Promise.allSettled([watch('future', String(BigInt(now) + 1_000_000n)), watch('now', now)]);
      await create('heard');
      await until('the watch of now', () => heard.includes('now ADDED'), 60_000);
      expect(heard).not.toContain('future ADDED');
      over.abort();
      expect((await ends).map((end) => end.status)).toEqual(['rejected', 'rejected']);
    });

    test.each(['streamed', 'in pages'])('an informer (%s list) sees what is there, what comes, changes and goes, and takes our own writes at once', async (how) => {
      const label = how === 'streamed' ? 'streamed' : 'paged';
      const there = await create(`${label}-there`, { labels: { informed: label } });
      const changes: Change<unknown>[] = [];
      const kube: Kube = how === 'streamed' ? bed.kube : { ...bed.kube, stream: (at, options) => (options.query?.['sendInitialEvents'] === true ? refused(at) : bed.kube.stream(at, options)) };
      const informer = startInformer({
        kube, resource: vms, namespace: bed.namespace, selector: { labelSelector: `informed=${label}` }, parse: (raw) => raw,
        onChange: (change) => changes.push(change), log: quiet, clock: systemClock, chance: Math.random, signal: stop.signal,
      });
      await informer.synced;
      const key = (short: string): string => `${bed.namespace}/${label}-${short}`;
      expect(informer.all().map((held) => held.key)).toEqual([key('there')]);
      await create(`${label}-new`, { labels: { informed: label } });
      await until('the new object', () => informer.held(key('new')), 60_000);
      const written = await patchStatus(bed.kube, vms, there, { observedGeneration: 1 });
      if (written.is === 'written') informer.accept(written.object);
      expect(informer.get(key('there'))).toMatchObject({ status: { observedGeneration: 1 } });
      await bed.kube.request('DELETE', path(`${label}-new`));
      await until('the end of it', () => informer.held(key('new')) === undefined, 60_000);
      expect(changes.at(-1)).toMatchObject({ is: 'gone', key: key('new'), seenBy: 'watch' });
    });

    test('the leader epoch rises at every acquisition, also by the same holder; where it can not rise it begins anew, and nobody is kept from leading', async () => {
      const take = async (identity: string) => takeLease({ kube: bed.kube, namespace: bed.namespace, name: 'contract', identity, clock: systemClock, chance: Math.random, log: quiet, signal: stop.signal });
      const first = await take('a');
      expect(first.epoch()).toBe(1);
      await first.confirm();
      await first.release();
      const again = await take('a');
      expect(again.epoch()).toBe(2);
      await again.release();
      await bed.kube.request('PATCH', pathOf(leases, { namespace: bed.namespace, name: 'contract' }), { body: { spec: { leaseTransitions: 2 ** 31 - 1 } }, contentType: 'application/merge-patch+json' });
      const other = await take('b');
      expect(other.epoch()).toBe(1);
      await other.release();
    });

    test('an event is accepted, also when the whole metadata of its object is handed in', async () => {
      const { metadata } = await create('eventful');
      const recorder = makeRecorder({ kube: bed.kube, instance: 'contract', log: quiet, clock: systemClock, signal: stop.signal });
      recorder.record({ regarding: { apiVersion: 'strato.dev/v1alpha1', kind: 'VirtualMachine', ...metadata }, type: 'Normal', reason: 'Tested', action: 'Testing', note: 'ü'.repeat(2_000) });
      await recorder.flush();
      expect(recorder.lost()).toBe(0);
    });
  });
};

/** What a server without streamed lists says. */
async function* refused(path: string): AsyncGenerator<unknown> {
  yield await Promise.reject(new KubeFault(`WATCH ${path}`, { status: 422, reason: 'Invalid', message: 'sendInitialEvents is forbidden' }));
}
