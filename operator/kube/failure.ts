import { z } from 'zod';
import type { KubeFailure } from './kube.ts';

const status = z.object({
  code: z.number().optional(),
  message: z.string().optional(),
  reason: z.string().optional(),
  details: z.object({
    retryAfterSeconds: z.number().optional(),
    causes: z.array(z.object({ reason: z.string().optional() })).nullish(),
  }).nullish(),
});

/**
 * What a Status object of the API server says, as the data of a KubeFault. `code` is the HTTP status; when unset (an ERROR frame of a
 * watch) the Status's own. Anything that is no Status gives only the code. `retryAfter` is the header, in seconds.
 */
export const failureOf = (code: number | undefined, body: unknown, retryAfter?: string): KubeFailure => {
  const { data } = status.safeParse(body);
  const seconds = retryAfter !== undefined && /^[0-9]{1,6}$/.test(retryAfter) ? Number(retryAfter) : data?.details?.retryAfterSeconds;
  return {
    status: code ?? data?.code ?? 500,
    message: data?.message ?? 'the answer is not a Status object',
    reason: data?.reason,
    causes: (data?.details?.causes ?? []).flatMap((each) => each.reason ?? []),
    retryAfterMs: seconds === undefined ? undefined : seconds * 1_000,
  };
};
