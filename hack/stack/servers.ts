import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import type { Servers } from '../servers/build.ts';
import { pairOf, type WantedAuthority } from './keys.ts';
import type { Layout } from './layout.ts';
import type { Service } from './service.ts';

const loopback = ['DNS:localhost', 'IP:127.0.0.1'];

/** The authorities and certificates of the stack. etcd has its own authority: whoever it knows reads every secret. */
export const wantedKeys: readonly WantedAuthority[] = [
  {
    name: 'ca',
    certs: [
      { name: 'kube-apiserver', subject: '/CN=kube-apiserver', names: [...loopback, 'IP:10.96.0.1', 'DNS:kubernetes', 'DNS:kubernetes.default', 'DNS:kubernetes.default.svc'], use: 'server' },
      { name: 'kube-controller-manager', subject: '/CN=system:kube-controller-manager', names: loopback, use: 'both' },
      { name: 'admin', subject: '/O=system:masters/CN=strato-admin', use: 'client' },
      { name: 'operator', subject: '/CN=strato-operator', names: [...loopback, 'DNS:strato-operator.strato-system.svc'], use: 'server' },
    ],
  },
  {
    name: 'etcd-ca',
    certs: [
      { name: 'etcd', subject: '/CN=etcd', names: loopback, use: 'both' },
      { name: 'etcd-client', subject: '/CN=kube-apiserver', use: 'client' },
    ],
  },
];

/** The address of the API server. */
export const apiserverUrl = (at: Layout): string => `https://127.0.0.1:${at.ports.apiserver}`;

/** Asks a URL with the keys of the stack; rejects unless the answer is 200. */
const probe = async (at: Layout, url: string, authority: string, client: string | undefined, signal: AbortSignal): Promise<void> => {
  const pem = (file: string) => readFile(file, 'utf8');
  const pair = client === undefined ? undefined : pairOf(at.pki, client);
  const keys = pair === undefined ? {} : { cert: await pem(pair.cert), key: await pem(pair.key) };
  const agent = new Agent({ connect: { ca: await pem(pairOf(at.pki, authority).cert), ...keys } });
  try {
    const response = await request(url, { dispatcher: agent, signal });
    const body = await response.body.text();
    if (response.statusCode !== 200) throw new Error(`${url} answers ${response.statusCode}: ${body.slice(0, 300)}`);
  } finally {
    await agent.destroy();
  }
};

/** etcd on loopback, for certificates of its own authority alone. */
export const etcdService = (at: Layout, servers: Servers, keys: string): Service => {
  const client = `https://127.0.0.1:${at.ports.etcd}`;
  const peer = `https://127.0.0.1:${at.ports.etcdPeer}`;
  const { cert, key } = pairOf(at.pki, 'etcd');
  const authority = pairOf(at.pki, 'etcd-ca').cert;
  return {
    name: 'etcd',
    argv: [
      servers.etcd, '--name=strato', `--data-dir=${at.etcd}`,
      `--listen-client-urls=${client}`, `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`, `--initial-advertise-peer-urls=${peer}`, `--initial-cluster=strato=${peer}`,
      `--cert-file=${cert}`, `--key-file=${key}`, '--client-cert-auth', `--trusted-ca-file=${authority}`,
      `--peer-cert-file=${cert}`, `--peer-key-file=${key}`, '--peer-client-cert-auth', `--peer-trusted-ca-file=${authority}`,
      '--log-level=warn',
    ],
    env: {},
    sources: keys,
    ready: (signal) => probe(at, `${client}/health`, 'etcd-ca', 'etcd-client', signal),
    readyMs: 60_000,
  };
};

/** kube-apiserver: RBAC, ServiceAccount tokens, audit log at metadata level. */
export const apiserverService = (at: Layout, servers: Servers, keys: string): Service => {
  const serving = pairOf(at.pki, 'kube-apiserver');
  const etcd = pairOf(at.pki, 'etcd-client');
  return {
    name: 'kube-apiserver',
    argv: [
      servers.kubeApiserver,
      `--etcd-servers=https://127.0.0.1:${at.ports.etcd}`, `--etcd-cafile=${pairOf(at.pki, 'etcd-ca').cert}`, `--etcd-certfile=${etcd.cert}`, `--etcd-keyfile=${etcd.key}`,
      '--bind-address=127.0.0.1', '--advertise-address=127.0.0.1', `--secure-port=${at.ports.apiserver}`, '--endpoint-reconciler-type=none',
      `--tls-cert-file=${serving.cert}`, `--tls-private-key-file=${serving.key}`, `--client-ca-file=${pairOf(at.pki, 'ca').cert}`,
      '--authorization-mode=Node,RBAC', '--service-cluster-ip-range=10.96.0.0/16', '--allow-privileged=true', '--profiling=false',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${join(at.pki, 'service-accounts.pub')}`, `--service-account-signing-key-file=${join(at.pki, 'service-accounts.key')}`,
      `--audit-policy-file=${join(at.root, 'hack', 'stack', 'audit-policy.yaml')}`, `--audit-log-path=${join(at.logs, 'audit.log')}`,
      '--audit-log-maxsize=100', '--audit-log-maxbackup=2',
    ],
    env: {},
    sources: keys,
    ready: (signal) => probe(at, `${apiserverUrl(at)}/readyz`, 'ca', 'admin', signal),
    readyMs: 90_000,
  };
};

/** kube-controller-manager: namespaces, garbage collection, RBAC aggregation. */
export const controllerManagerService = (at: Layout, servers: Servers, keys: string): Service => {
  const { cert, key } = pairOf(at.pki, 'kube-controller-manager');
  const authority = pairOf(at.pki, 'ca').cert;
  return {
    name: 'kube-controller-manager',
    argv: [
      servers.kubeControllerManager, `--kubeconfig=${join(at.pki, 'kube-controller-manager.kubeconfig')}`,
      '--bind-address=127.0.0.1', `--secure-port=${at.ports.controllerManager}`, `--tls-cert-file=${cert}`, `--tls-private-key-file=${key}`,
      '--leader-elect=false', '--use-service-account-credentials=true', '--profiling=false',
      `--service-account-private-key-file=${join(at.pki, 'service-accounts.key')}`, `--root-ca-file=${authority}`,
      // Without a kubelet it would call node-1 lost for ever.
      '--controllers=*,-node-lifecycle-controller',
    ],
    env: {},
    sources: keys,
    ready: (signal) => probe(at, `https://127.0.0.1:${at.ports.controllerManager}/healthz`, 'ca', undefined, signal),
    readyMs: 60_000,
  };
};
