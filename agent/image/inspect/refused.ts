import { Fault } from '#crds/kit/fault.ts';

/** Refuses an image for ever; `why` ends the sentence "the image is refused: ...". */
export const refused = (why: string): never => {
  throw new Fault('ImageRefused', `the image is refused: ${why}`, { retry: 'never' });
};
