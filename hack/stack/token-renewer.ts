// Keeps the token files of the stack fresh, as a kubelet does for pods. Arguments: NODE AGENT_TOKEN_FILE OPERATOR_TOKEN_FILE.
import { readFile, rename, writeFile } from 'node:fs/promises';
import { pino } from 'pino';
import { z } from 'zod';
import { jittered } from '#crds/kit/backoff.ts';
import { systemClock } from '#crds/kit/clock.ts';
import { asFault, messageOf } from '#crds/kit/fault.ts';
import { agentAudience, agentServiceAccount } from '#crds/v1alpha1/names.ts';
import { loadConfig } from '#operator/kube/auth.ts';
import { connectKube } from '#operator/kube/client.ts';
import { systemNamespace } from './layout.ts';
import { isDue, tokenRequest, type WantedToken } from './token.ts';

// The shortest life that the API server gives.
const lifeSeconds = 600;
const lookEachMs = 10_000;

const { KUBECONFIG } = z.object({ KUBECONFIG: z.string().min(1) }).parse(process.env);
const [nodeName, agentFile, operatorFile] = z.tuple([z.string().min(1), z.string().min(1), z.string().min(1)]).parse(process.argv.slice(2));
const log = pino({ name: 'token-renewer', timestamp: pino.stdTimeFunctions.isoTime });
const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort(new Error(signal)));

await using kube = connectKube(loadConfig(KUBECONFIG), { userAgent: 'strato-token-renewer/0.1.0', deadlineMs: 10_000 });

const observeNodeUid = async (): Promise<string> => {
  const answer = await kube.request('GET', `/api/v1/nodes/${nodeName}`, { signal: stop.signal });
  return z.object({ metadata: z.object({ uid: z.string() }) }).parse(answer).metadata.uid;
};

const renew = async (file: string, want: WantedToken): Promise<void> => {
  const held = await readFile(file, 'utf8').catch(() => undefined);
  if (!isDue(held, want, new Date())) return;
  const path = `/api/v1/namespaces/${want.namespace}/serviceaccounts/${want.serviceAccount}/token`;
  const answer = await kube.request('POST', path, { body: tokenRequest(want, lifeSeconds), signal: stop.signal });
  const { status } = z.object({ status: z.object({ token: z.string().min(1), expirationTimestamp: z.string() }) }).parse(answer);
  const fresh = `${file}.new`;
  await writeFile(fresh, status.token, { mode: 0o600 });
  await rename(fresh, file);
  log.info({ file, serviceAccount: want.serviceAccount, expires: status.expirationTimestamp }, 'token renewed');
};

const pass = async (): Promise<void> => {
  const at = { namespace: systemNamespace };
  // Each on its own: a lost Node costs the agent's token, not the operator's.
  const passes = await Promise.allSettled([
    renew(operatorFile, { ...at, serviceAccount: 'strato-operator' }),
    observeNodeUid().then((uid) => renew(agentFile, { ...at, serviceAccount: agentServiceAccount, audience: agentAudience, node: { name: nodeName, uid } })),
  ]);
  const failed = passes.find((each) => each.status === 'rejected');
  if (failed !== undefined) throw asFault(failed.reason, 'RenewFailed', 'renew the tokens');
};

let attempt = 0;
while (!stop.signal.aborted) {
  let waitMs = lookEachMs;
  try {
    await pass();
    attempt = 0;
  } catch (thrown) {
    if (stop.signal.aborted) break;
    // The first failures are those of a cluster that is just being made.
    if (attempt === 3) log.warn({ why: messageOf(thrown) }, 'tokens can not be renewed');
    waitMs = jittered({ baseMs: 250, maxMs: lookEachMs }, attempt++, Math.random());
  }
  await systemClock.sleep(waitMs, stop.signal).catch(() => undefined);
}
