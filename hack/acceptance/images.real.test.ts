// Images on a real agent: one download for all, and no partial image is ever used, whenever the agent dies (F15).
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { testGuest, testGuestReady } from '#agent/hypervisor/testguest.ts';
import { openTestWeb, type TestWeb } from '#agent/image/web/testweb.ts';
import { someVm, uidOf } from '#agent/vm/bed.ts';
import type { DesiredImage } from '#crds/wire/desired.ts';
import { type PlainOperator, startPlainOperator } from '../bed/plainoperator.ts';
import { type RealNode, startRealNode } from '../bed/realnode.ts';
import { slowConversions } from '../bed/slowconversions.ts';
import { until } from '../bed/until.ts';

const run = promisify(execFile);
const stepMs = 120_000;
const mebibyte = 1024 * 1024;

describe('images on a real agent', () => {
  let operator: PlainOperator;
  let node: RealNode;
  let web: TestWeb;
  let slow: Awaited<ReturnType<typeof slowConversions>>;
  let next = 1000;
  beforeAll(async () => {
    web = await openTestWeb();
    operator = await startPlainOperator();
    slow = await slowConversions(40);
    node = await startRealNode(operator, operator.url, 'node-1', { env: { PATH: slow.path } });
    await node.joined();
  }, stepMs);
  afterAll(async () => {
    await node?.[Symbol.asyncDispose]();
    await operator?.[Symbol.asyncDispose]();
    await web?.close();
    await slow?.[Symbol.asyncDispose]();
  }, stepMs);

  afterEach(() => web.release());

  const fresh = () => uidOf((next += 1));
  /** A bootable raw disk that nobody else has, of `sizeMiB` that can not be compressed. */
  const disk = (sizeMiB: number): Buffer => Buffer.concat([Buffer.from(testGuest()), randomBytes((sizeMiB - 1) * mebibyte)]);
  const image = (path: string, over: Partial<DesiredImage> = {}): DesiredImage => {
    const uid = fresh();
    return { kind: 'image', uid, namespace: 'default', name: `image-${uid.slice(-4)}`, generation: 1, url: `http://127.0.0.1:${web.port}${path}`, format: 'raw', ...over };
  };
  const vms = (count: number, imageUid: string) => Array.from({ length: count }, () => {
    const uid = fresh();
    return someVm({ uid, uuid: fresh(), name: `vm-${uid.slice(-4)}`, memoryMiB: 16, disks: [{ name: 'root', imageUid }], interfaces: [] });
  });
  const isUp = (uid: string) => until(`guest ${uid}`, async () => operator.vm(uid)?.state === 'running' && (await node.serial(uid)).includes(testGuestReady), stepMs);
  const end = async (image: string, machines: readonly { uid: string }[]) => {
    for (const { uid } of machines) operator.end('vm', uid);
    await Promise.all(machines.map(({ uid }) => operator.gone(uid, stepMs)));
    operator.end('image', image);
    await operator.gone(image, stepMs);
  };

  test('F15: 20 VMs that wait for one image share one download', async () => {
    const wanted = image('/twenty');
    web.serve('/twenty', { is: 'bytes', bytes: disk(4) });
    web.holdAll();
    operator.want(wanted);
    const twenty = vms(20, wanted.uid);
    for (const vm of twenty) operator.want(vm);
    await Promise.all(twenty.map(({ uid }) => until(`${uid} to wait`, () => operator.vm(uid)?.state === 'preparing', stepMs)));
    await until('half of it to arrive', () => operator.image(wanted.uid)?.progress === 40, stepMs);
    expect(operator.image(wanted.uid)).toMatchObject({ state: 'importing' });
    expect([web.requests('/twenty'), await node.qemus()]).toEqual([1, []]);
    web.release();
    await Promise.all(twenty.map(({ uid }) => isUp(uid)));
    expect(web.requests('/twenty')).toBe(1);
    // All of them stand on one file, which lies in the cache.
    const bases = await Promise.all(twenty.map(({ uid }) => stat(join(node.paths.disks(uid), 'root.base'))));
    expect([new Set(bases.map(({ ino }) => ino)).size, bases[0]?.nlink]).toEqual([1, 21]);
    await end(wanted.uid, twenty);
  }, 3 * stepMs);

  const inPartial = async (file: string): Promise<number> => {
    const folder = join(node.paths.images, 'partial');
    const sizes = await Promise.all((await readdir(folder).catch(() => [])).map((each) => stat(join(folder, each, file)).then(({ size }) => size, () => -1)));
    return Math.max(-1, ...sizes);
  };
  const inCache = async (ending: string): Promise<number> => (await readdir(node.paths.images).catch(() => [])).filter((name) => /^[0-9a-f]{64}/.test(name) && name.endsWith(ending)).length;
  const sizeMiB = 48;

  // With how many requests for the whole at most: before a byte has arrived there is nothing to go on with.
  test.each<[string, 1 | 2, (uid: string) => Promise<boolean>]>([
    ['the desire is on disk', 2, async (uid) => existsSync(join(node.paths.ledger, `${uid}.json`))],
    ['the image is claimed', 2, async (uid) => existsSync(join(node.paths.images, 'wanted', `${uid}.json`))],
    ['the download begins', 2, async () => (await inPartial('fetched')) >= 0],
    ['a part of it is there', 1, async () => (await inPartial('fetched')) > 8 * mebibyte],
    ['all of it is there', 1, async () => (await inPartial('source')) >= 0],
    ['the conversion begins', 1, async () => (await inPartial('converted.qcow2')) >= 0],
    ['a part of it is converted', 1, async () => (await inPartial('converted.qcow2')) > 8 * mebibyte],
    ['it gets its name', 1, async () => (await inCache('.qcow2')) > 0],
    ['it is described', 1, async () => (await inCache('.json')) > 0],
    ['a VM has a link to it', 1, async () => (await readdir(node.paths.vms, { recursive: true }).catch(() => [])).some((name) => name.endsWith('root.base'))],
  ])('F15: the agent is killed when %s: what the VMs get is whole, and fetched once', async (step, wholes, happened) => {
    const path = `/${step.replaceAll(' ', '-')}`;
    const bytes = disk(sizeMiB);
    web.serve(path, { is: 'bytes', bytes, etag: '"1"' });
    const wanted = image(path);
    const three = vms(3, wanted.uid);
    operator.want(wanted);
    for (const vm of three) operator.want(vm);
    const deadline = performance.now() + stepMs;
    while (!(await happened(wanted.uid))) {
      if (performance.now() > deadline) throw new Error('the step was never seen');
      await delay(1);
    }
    await node.end('SIGKILL');
    await until('its tools to die with it', async () => !(await run('ps', ['-eo', 'args=', '-u', String(node.toolsId)]).catch(() => ({ stdout: '' }))).stdout.includes('qemu-img convert'), stepMs);
    await node.start();
    await Promise.all(three.map(({ uid }) => isUp(uid)));
    expect(web.seen(path).filter(({ range }) => range === undefined).length).toBeLessThanOrEqual(wholes);
    const source = join(node.paths.images, '..', 'source.raw');
    await writeFile(source, bytes);
    for (const { uid } of three) await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, join(node.paths.disks(uid), 'root.base')]);
    expect(await readdir(join(node.paths.images, 'partial'))).toEqual([]);
    expect([await inCache('.qcow2'), await inCache('.json'), await inCache('.new')]).toEqual([1, 1, 0]);
    await end(wanted.uid, three);
    expect(await inCache('')).toBe(0);
  }, 3 * stepMs);
});
