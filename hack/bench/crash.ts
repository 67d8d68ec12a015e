import { conditionOf } from '#crds/v1alpha1/condition.ts';
import { vmManifest } from '../bed/objects.ts';
import { until } from '../bed/until.ts';
import { startWhole } from '../bed/whole.ts';
import { atMost, type Figure, quantile } from './figure.ts';

const rounds = 20;
const limitMs = 60_000;

/** Case N05: how long after a SIGKILL to its QEMU the API tells of a VM that it crashed, with the signal. */
export const benchCrash = async (tell: (doing: string) => void): Promise<Figure[]> => {
  await using all = await startWhole();
  const took: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    tell(`crash ${round + 1} of ${rounds}`);
    const name = `bench-crash-${round}`;
    await all.me.apply(vmManifest(name, { memory: { size: '32Mi' }, restartPolicy: 'Never' }));
    const { metadata: { uid } } = await all.me.vmIs(name, 'Ready=True Running', limitMs);
    const qemu = (await all.node.qemus()).find((each) => each.uid === uid);
    if (!qemu) throw new Error(`VM ${name} has no QEMU`);
    const sinceMs = performance.now();
    process.kill(qemu.pid, 'SIGKILL');
    await until('the crash to be told', async () => {
      const { status } = await all.me.vm(name);
      return conditionOf(status.conditions, 'Ready')?.reason === 'QemuCrashed' && status.lastExit?.signal === 'SIGKILL';
    }, limitMs);
    took.push(performance.now() - sinceMs);
    await all.me.deleteVm(name);
    await all.me.vmGone(name, limitMs);
  }
  return [
    atMost('crash', 'SIGKILL to QEMU until the API tells of it, P50', quantile(took, 0.5), 'ms', 1_000),
    atMost('crash', 'SIGKILL to QEMU until the API tells of it, P95', quantile(took, 0.95), 'ms', 1_000),
  ];
};
