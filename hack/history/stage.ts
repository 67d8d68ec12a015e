import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Apart, startApart } from '../bed/apart.ts';
import { diaryGuest } from './guest.ts';
import { startWitness, type Witness } from './witnessed.ts';

/** All of Strato in processes of their own, and the witness beside them. */
export type Stage = Apart & { witness: Witness };

/** The image of VMs on the stage. */
export const diaryImage = 'diary';

/** Longer than any history, in seconds. */
const tokenSeconds = 24 * 3600;

/** Opens the stage, with an image whose guest is `diaryGuest`. Needs root and what `./hack/up` installs. */
export const openStage = async (): Promise<Stage> => {
  await using opened = new AsyncDisposableStack();
  const all = opened.use(await startApart({ tokenSeconds, image: { name: diaryImage, bytes: diaryGuest() } }));
  const folder = await mkdtemp(join(tmpdir(), 'strato-history-'));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const witness = opened.use(await startWitness(all.node.paths.vms, join(folder, 'witness')));
  const stage = opened.move();
  return { ...all, witness, [Symbol.asyncDispose]: () => stage.disposeAsync() };
};
