// Firmware, TPM and further devices on a real QEMU. What a guest makes of them is shown in hack/acceptance.
import { randomUUID } from 'node:crypto';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { tpmEmulator } from '#hack/bed/tpm.ts';
import { until } from '#hack/bed/until.ts';
import type { MachineSpec } from '../driver.ts';
import { openQemuBed, type QemuBed } from './bed.ts';
import { lockIsFree } from './lock.ts';

const waitMs = 240_000;
const signal = () => AbortSignal.timeout(waitMs);
const uefi = { type: 'uefi', secureBoot: false, tpm: false } as const;

describe('firmware', () => {
  let bed: QemuBed;
  let uid: string;
  beforeEach(async () => {
    bed = await openQemuBed();
    uid = randomUUID();
  });
  afterEach(() => bed.close());

  const runs = async (over: Partial<MachineSpec>): Promise<MachineSpec> => {
    const spec = { ...(await bed.spec(uid)), memoryMiB: 256, maxMemoryMiB: 256, ...over };
    await bed.hypervisor.start(spec, signal());
    await bed.hypervisor.resume(uid, signal());
    return spec;
  };
  const ends = async (): Promise<void> => {
    await bed.hypervisor.kill(uid, signal());
    await until('the lock to be free', () => lockIsFree(bed.paths.lock(uid), 0, signal()), waitMs);
  };
  const serialHas = (text: RegExp) => until(`${String(text)} on the serial console`, async () => text.test(await bed.serial(uid)), waitMs);
  const variables = () => join(bed.paths.vm(uid), 'vars.fd');

  test.each([['amd64', {}], ['amd64', { secureBoot: true }], ['arm64', {}]] as const)('UEFI of %s %j starts, with variables of its own that it keeps', async (architecture, over) => {
    const spec = await runs({ architecture, firmware: { ...uefi, ...over } });
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present', facts: { accelerator: 'tcg', type: architecture === 'arm64' ? expect.stringMatching(/^virt-/) : expect.stringMatching(/^pc-q35-/) } });
    await serialHas(/BdsDxe|UEFI|EFI stub/);
    await ends();
    const { uid: owner, mode } = await stat(variables());
    expect([owner, mode & 0o777]).toEqual([spec.unixId, 0o600]);
    const kept = await readFile(variables());
    await bed.hypervisor.start({ ...spec, startId: randomUUID(), firmwareMade: true }, signal());
    expect((await readFile(variables())).equals(kept)).toBe(true);
    await ends();
    await rm(variables());
    await expect(bed.hypervisor.start({ ...spec, startId: randomUUID(), firmwareMade: true }, signal())).rejects.toMatchObject({ code: 'FirmwareMissing', retry: 'never' });
  }, 600_000);

  test('a TPM has a state of its own; its emulator ends with the machine, and comes with the next', async () => {
    const spec = await runs({ firmware: { type: 'bios', secureBoot: false, tpm: true } });
    const state = join(bed.paths.vm(uid), 'tpm');
    await until('its state', async () => (await readdir(state)).some((name) => name.endsWith('.permall')), waitMs);
    await bed.powerOff(uid);
    await until('its end', async () => (await bed.hypervisor.observe(uid, signal())).is === 'gone', waitMs);
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ last: { cause: 'guest' } });
    await bed.hypervisor.start({ ...spec, startId: randomUUID(), firmwareMade: true }, signal());
    await ends();
    await rm(state, { recursive: true });
    await expect(bed.hypervisor.start({ ...spec, startId: randomUUID(), firmwareMade: true }, signal())).rejects.toMatchObject({ code: 'FirmwareMissing' });
  }, 600_000);

  test('a TPM whose emulator dies is told as lost, the guest runs on, and the next start has it again', async () => {
    const spec = await runs({ firmware: { type: 'bios', secureBoot: false, tpm: true } });
    expect(await bed.hypervisor.observe(uid, signal())).not.toHaveProperty('tpmLost');
    process.kill(await tpmEmulator(bed.paths.vm(uid)), 'SIGKILL');
    expect(await until('it to be told', async () => {
      const sight = await bed.hypervisor.observe(uid, signal());
      return sight.is === 'present' && sight.tpmLost && sight;
    }, waitMs)).toMatchObject({ guest: 'running' });
    await ends();
    await bed.hypervisor.start({ ...spec, startId: randomUUID(), firmwareMade: true }, signal());
    expect(await bed.hypervisor.observe(uid, signal())).not.toHaveProperty('tpmLost');
  }, 600_000);

  test('a start that fails leaves no emulator that holds the lock', async () => {
    const spec = { ...(await bed.spec(uid)), firmware: { type: 'bios' as const, secureBoot: false, tpm: true } };
    await expect(bed.hypervisor.start({ ...spec, type: 'pc-q35-0.1' }, signal())).rejects.toMatchObject({ code: 'StartFailed' });
    await until('the lock to be free', () => lockIsFree(bed.paths.lock(uid), 0, signal()), waitMs);
    await bed.hypervisor.start({ ...spec, startId: randomUUID() }, signal());
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ is: 'present' });
  });

  test('every device that the node has can be there at once', async () => {
    await runs({ devices: { watchdog: true, rng: true, panic: true, graphics: true, vsock: false, guestAgent: true } });
    await serialHas(/up/);
    expect((await readdir(bed.paths.sockets(uid))).sort()).toEqual(['qga.sock', 'qmp.sock', 'tools.sock', 'vnc.sock']);
    expect((await stat(bed.paths.sockets(uid))).mode & 0o777).toBe(0o700);
  }, 600_000);

  test('what the node does not have is named before anything starts', async () => {
    const spec = await bed.spec(uid);
    await expect(bed.hypervisor.start({ ...spec, devices: { ...spec.devices, vsock: true } }, signal())).rejects.toMatchObject({ code: 'FeatureMissing', message: expect.stringMatching(/vhost-vsock/) });
    await expect(bed.hypervisor.start({ ...spec, architecture: 'arm64', firmware: { ...uefi, secureBoot: true } }, signal())).rejects.toMatchObject({ code: 'FeatureMissing' });
    expect(await bed.hypervisor.observe(uid, signal())).toEqual({ is: 'gone' });
  });

  test('a named CPU model that QEMU does not know fails the start with what it said', async () => {
    const spec = await bed.spec(uid);
    await expect(bed.hypervisor.start({ ...spec, cpuModel: 'NoSuchModel' }, signal())).rejects.toMatchObject({ code: 'StartFailed', message: expect.stringMatching(/NoSuchModel/) });
    await bed.hypervisor.start({ ...spec, startId: randomUUID(), cpuModel: 'qemu64' }, signal());
    expect(await bed.hypervisor.observe(uid, signal())).toMatchObject({ facts: { cpuModel: 'qemu64' } });
  });
});
