import { z } from 'zod';
import { Fault } from '#crds/kit/fault.ts';

const hostPort = z.string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, { error: 'must be HOST:PORT' })
  .transform((text) => ({ host: text.slice(0, text.lastIndexOf(':')).replace(/^\[|\]$/g, ''), port: Number(text.slice(text.lastIndexOf(':') + 1)) }))
  .refine(({ port }) => port <= 65_535, { error: 'the port must be at most 65535' });

const variables = z.strictObject({
  STRATO_NAMESPACE: z.string().regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/).max(63).default('strato-system'),
  STRATO_AGENT_LISTEN: hostPort.prefault('0.0.0.0:8443'),
  STRATO_HTTP_LISTEN: hostPort.prefault('0.0.0.0:8080'),
  STRATO_TLS_CERT_FILE: z.string().min(1),
  STRATO_TLS_KEY_FILE: z.string().min(1),
  STRATO_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
  STRATO_IDENTITY: z.string().min(1).max(253).optional(),
});

/** The operator's configuration; read once, from the environment. `kubeconfig` is unset in a pod. */
export type OperatorConfig = Readonly<{
  kubeconfig: string | undefined;
  namespace: string;
  agentListen: { host: string; port: number };
  httpListen: { host: string; port: number };
  tlsCertFile: string;
  tlsKeyFile: string;
  logLevel: 'debug' | 'info' | 'warn' | 'error';
  identity: string;
}>;

/**
 * Reads the environment. Fault BadConfig names every variable that is wrong, its value and the rule; a STRATO_ variable that
 * does not exist is one of them. `hostname` is the identity when none is given: a pod's name.
 */
export const parseConfig = (env: Readonly<Record<string, string | undefined>>, hostname: string): OperatorConfig => {
  const ours = Object.fromEntries(Object.entries(env).filter(([key, value]) => key.startsWith('STRATO_') && value !== undefined && key !== 'STRATO_CACHE'));
  const result = variables.safeParse(ours);
  if (!result.success) {
    const lines = result.error.issues.map(({ path, message }) => {
      const name = String(path[0] ?? 'environment');
      return `${name}=${ours[name] ?? '(unset)'}: ${message}`;
    });
    throw new Fault('BadConfig', lines.join('\n'), { retry: 'never' });
  }
  const { data } = result;
  return Object.freeze({
    kubeconfig: env['KUBECONFIG'],
    namespace: data.STRATO_NAMESPACE,
    agentListen: data.STRATO_AGENT_LISTEN,
    httpListen: data.STRATO_HTTP_LISTEN,
    tlsCertFile: data.STRATO_TLS_CERT_FILE,
    tlsKeyFile: data.STRATO_TLS_KEY_FILE,
    logLevel: data.STRATO_LOG_LEVEL,
    identity: data.STRATO_IDENTITY ?? hostname,
  });
};
