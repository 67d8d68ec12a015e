import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';
import type { MachineDrive } from '../driver.ts';
import { idsOf } from './devices.ts';
import { noSata, plug } from './diskchange.ts';
import { driveParts, mediumNode } from './diskparts.ts';
import { reached, unlessRefused } from './peripherals.ts';
import type { Qmp } from './qmp.ts';

const nothing = z.unknown();
// A guest that heeds the button of its drive lets go within moments; one that has the medium mounted may not.
const ejectMs = 10_000;

/** Plugs a CD drive. */
export const addDrive = async (qmp: Qmp, drive: MachineDrive, signal: AbortSignal): Promise<void> => {
  const { nodes, devices } = driveParts(drive, noSata);
  await plug(qmp, drive.slot, async () => {
    for (const node of nodes) await qmp.execute('blockdev-add', nothing, signal, node);
  }, devices, signal);
};

const blocks = z.array(z.object({ qdev: z.string().optional(), tray_open: z.boolean().optional() }));

/**
 * Changes the medium of a CD drive, from the beginning each time: whatever an attempt that was cut off left is put right.
 * Fault ChangeRefused when the guest holds the medium locked. Source: QAPI blockdev-open-tray.
 */
export const setMedium = async (qmp: Qmp, slot: number, medium: string | undefined, signal: AbortSignal): Promise<void> => {
  const { disk: id, node } = idsOf(slot);
  const isOpen = async (): Promise<boolean> => (await qmp.execute('query-block', blocks, signal)).find(({ qdev }) => qdev === id)?.tray_open === true;
  // Refused while the guest has the tray locked. The guest is then told of the wish (an eject request), and opens the tray itself when it lets go.
  await unlessRefused(qmp.execute('blockdev-open-tray', nothing, signal, { id }));
  if (!(await reached(ejectMs, signal, isOpen))) throw new Fault('ChangeRefused', 'the guest holds the medium locked: unmount it there; it is asked for again, and changed at the next power cycle in any case');
  await unlessRefused(qmp.execute('blockdev-remove-medium', nothing, signal, { id }));
  await unlessRefused(qmp.execute('blockdev-del', nothing, signal, { 'node-name': node }));
  if (medium !== undefined) {
    await qmp.execute('blockdev-add', nothing, signal, mediumNode(slot, medium));
    await qmp.execute('blockdev-insert-medium', nothing, signal, { id, 'node-name': node });
  }
  await qmp.execute('blockdev-close-tray', nothing, signal, { id });
};
