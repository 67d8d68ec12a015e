// What a guest finds in its machine and says of itself: memory that is plugged, firmware, TPM, agent, probes.
import { describe, expect, test } from '@jest/globals';
import { verdict } from '../bed/objects.ts';
import { opened } from '../bed/opened.ts';
import { tpmEmulator } from '../bed/tpm.ts';
import { until } from '../bed/until.ts';
import { bootMs, openScene, stepMs } from './scene.ts';

describe('a guest', () => {
  const scene = opened(openScene);

  const seenIn = async (uid: string, marker: RegExp) => [...(await scene.all.node.serial(uid)).matchAll(marker)].map(([, value]) => Number(value));
  const guestIs = (name: string, wanted: string) => until(`${name} to be ${wanted}`, async () => {
    const vm = await scene.all.me.vm(name);
    return verdict(vm, 'GuestReady') === wanted && vm;
  }, bootMs);

  test('is given memory while it runs, and gives it back; its agent tells what it is', async () => {
    const { linux, runs, edit, all, removed } = scene;
    const uid = await runs(linux('grows', { memory: { size: '256Mi', max: '768Mi' }, interfaces: [{ name: 'net0', user: {} }], probes: { ready: { guestAgent: {} } } }));
    // Its agent may answer before it has an address.
    const told = await until('its agent to tell its address', async () => {
      const vm = await guestIs('grows', 'GuestReady=True ProbeSucceeded');
      return vm.status.interfaces?.some(({ addresses }) => addresses?.some((each) => each.startsWith('10.0.2.'))) && vm;
    }, bootMs);
    expect(told.status).toMatchObject({
      guest: { agentVersion: expect.stringMatching(/^\d/), hostname: 'grows', os: expect.any(String) }, interfaces: [{ addresses: expect.arrayContaining([expect.stringMatching(/^10\.0\.2\./)]) }],
      timings: { accepted: expect.any(String), scheduled: expect.any(String), prepared: expect.any(String), running: expect.any(String), guestReady: expect.any(String) },
    });
    const [before = 0] = await seenIn(uid, /STRATO mem=(\d+) MiB/g);
    await edit('grows', { memory: { size: '512Mi' } });
    await until('the guest to see it', async () => Math.max(...(await seenIn(uid, /STRATO mem=(\d+) MiB/g))) >= before + 200, bootMs);
    expect((await until('the spec to be applied', async () => {
      const vm = await all.me.vm('grows');
      return vm.status.appliedGeneration === vm.metadata.generation && vm;
    }, bootMs)).status.resolved?.memory).toBe('512Mi');
    await edit('grows', { memory: { size: '256Mi' } });
    await until('the guest to give it back', async () => (await all.me.vm('grows')).status.resolved?.memory === '256Mi', bootMs);
    await edit('grows', { memory: { size: '128Mi' } });
    await all.me.vmIs('grows', 'RestartRequired=True ChangesPending', bootMs);
    expect(await removed('grows', uid)).toEqual([]);
  }, 600_000);

  test('under UEFI with Secure Boot and a TPM sees both, and they outlive its power cycle', async () => {
    const { linux, runs, edit, all, serialHas, removed } = scene;
    const uid = await runs(linux('secure', { memory: { size: '512Mi' }, firmware: { type: 'uefi', secureBoot: true, tpm: true }, probes: { ready: { serialPattern: 'STRATO ready*secureboot=1' } } }));
    await guestIs('secure', 'GuestReady=True ProbeSucceeded');
    await serialHas(uid, 'STRATO tpm=1');
    process.kill(await tpmEmulator(all.node.paths.vm(uid)), 'SIGKILL');
    // Any edit has its node look.
    await edit('secure', { stop: { gracePeriodSeconds: 61 } });
    expect(verdict(await all.me.vmIs('secure', 'RestartRequired=True TpmLost', stepMs))).toBe('Ready=True Running');
    await edit('secure', { restartToken: 'again' });
    await until('the restart', async () => (await all.me.vm('secure')).status.restartTokenObserved === 'again', bootMs);
    await guestIs('secure', 'GuestReady=True ProbeSucceeded');
    await serialHas(uid, 'STRATO tpm=1');
    await all.me.vmIs('secure', 'RestartRequired=False UpToDate', stepMs);
    const refused = all.me.patchVm('secure', { spec: { firmware: { tpm: false } } });
    await expect(refused).rejects.toThrow(/firmware can not be changed/);
    expect(await removed('secure', uid)).toEqual([]);
  }, 900_000);

  const messageOf = (vm: Awaited<ReturnType<typeof scene.all.me.vm>>, type: string) => vm.status.conditions?.find((each) => each.type === type)?.message ?? '';

  test('that asks for what the node lacks goes nowhere, and the message says what is missing', async () => {
    const { all, linux, removed } = scene;
    await all.me.apply(linux('wishes', { cpu: { cores: 1, model: 'NoSuchModel' } }));
    const waits = await all.me.vmIs('wishes', 'Scheduled=False NoNodeFits', stepMs);
    expect(messageOf(waits, 'Scheduled')).toContain('NoSuchModel');
    expect(await removed('wishes', waits.metadata.uid)).toEqual([]);
  }, stepMs);

  test('that hears nothing is not ready, though its node takes the connection for it', async () => {
    const { all, tiny, runs, removed } = scene;
    const uid = await runs(tiny('deaf', { interfaces: [{ name: 'net0', user: { forwards: [{ name: 'web', hostPort: 28_091, port: 80 }] } }], probes: { ready: { tcp: { port: 80 } } } }));
    const probed = await until('the first probe', async () => {
      const vm = await all.me.vm('deaf');
      return /TCP port 80/.test(messageOf(vm, 'GuestReady')) && vm;
    }, bootMs);
    expect([verdict(probed, 'GuestReady'), messageOf(probed, 'GuestReady')]).toEqual(['GuestReady=False ProbeFailing', 'TCP port 80 of the guest takes no connection']);
    expect(await removed('deaf', uid)).toEqual([]);
  }, bootMs);

  test('is probed by a connection through its forward, and reaches nothing that listens on its node alone', async () => {
    const { all, linux, runs, removed, serialHas, type } = scene;
    const uid = await runs(linux('serves', { interfaces: [{ name: 'net0', user: { forwards: [{ name: 'web', hostPort: 28_090, port: 80 }] } }], probes: { ready: { tcp: { port: 80 } } } }));
    await guestIs('serves', 'GuestReady=True ProbeSucceeded');
    expect(await (await fetch('http://127.0.0.1:28090/', { signal: AbortSignal.timeout(stepMs) })).text()).toContain('serves');
    // The address by which a guest of user networking would reach what listens on its node alone.
    const { port } = new URL(all.web.serve('/secret', { is: 'bytes', bytes: Buffer.from('of the node') }));
    await type(uid, `get() { printf 'GET /secret HTTP/1.0\\r\\n\\r\\n' | nc -w 5 "$@" | grep -cE "$text"; }\n`);
    await type(uid, `text="404 Not Found"; echo "own=$(get 127.0.0.1 80)."; text="of the node"; echo "node=$(get 10.0.2.2 ${port})."\n`);
    await serialHas(uid, /own=[1-9]\.[^]*node=0\./);
    expect(await removed('serves', uid)).toEqual([]);
  }, 400_000);
});
