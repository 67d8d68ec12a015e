import { createHash } from 'node:crypto';
import { basename, isAbsolute, join, resolve } from 'node:path';
import { Fault } from '#crds/kit/fault.ts';

/** The processes of the stack, in the order in which they need one another. */
export const processNames = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'image-server', 'token-renewer', 'operator', 'agent-node-1'] as const;
/** A process of the stack. */
export type ProcessName = (typeof processNames)[number];

/** The node of the one agent. */
export const nodeName = 'node-1';
/** Where the operator lives. */
export const systemNamespace = 'strato-system';

/** The first of the stack's ports when `STRATO_PORT_BASE` is unset. `hack/lib/bootstrap.sh` has the same figure. */
export const defaultPortBase = 16440;

const portOffsets = { etcd: 0, etcdPeer: 1, controllerManager: 2, apiserver: 3, images: 4, agents: 5, operatorHttp: 6 } as const;
/** The ports of the stack, all on 127.0.0.1. */
export type Ports = Record<keyof typeof portOffsets, number>;

/** The ports from the text of `STRATO_PORT_BASE`, so that two clones can run side by side. Faults: PortBase. */
export const planPorts = (base: string | undefined): Ports => {
  const first = base === undefined || base === '' ? defaultPortBase : /^\d{4,5}$/.test(base) ? Number(base) : Number.NaN;
  if (!(first >= 1024 && first <= 65500)) {
    throw new Fault('PortBase', `STRATO_PORT_BASE is "${base}": give the first of ${Object.keys(portOffsets).length} free ports, 1024 to 65500`, { retry: 'never' });
  }
  return {
    etcd: first + portOffsets.etcd,
    etcdPeer: first + portOffsets.etcdPeer,
    controllerManager: first + portOffsets.controllerManager,
    apiserver: first + portOffsets.apiserver,
    images: first + portOffsets.images,
    agents: first + portOffsets.agents,
    operatorHttp: first + portOffsets.operatorHttp,
  };
};

/** `.strato` of the clone, or where the text of `STRATO_HOME` has it. The name is fixed, since `--purge` removes that folder. Faults: StratoHome. */
export const planHome = (root: string, home: string | undefined): string => {
  if (home === undefined || home === '') return join(root, '.strato');
  if (!isAbsolute(home) || basename(resolve(home)) !== '.strato') {
    throw new Fault('StratoHome', `STRATO_HOME is "${home}": give an absolute path that ends in /.strato`, { retry: 'never' });
  }
  return resolve(home);
};

/**
 * Where everything of the stack lies. `root` is the absolute path of the clone.
 *
 *   .strato/kubeconfig          of the administrator
 *   .strato/bin/kubectl
 *   .strato/run/NAME.pid        the process id, nothing else; NAME.start: what proves that it is still that process
 *   .strato/logs/NAME.log
 *   .strato/etcd/ pki/          data of etcd; keys and certificates
 *   .strato/images/             what the image server serves
 *   .strato/operator/           kubeconfig and token of the operator
 *   .strato/agent-node-1/       state of the agent: config.toml, token, vms/UID/...
 */
export const layout = (root: string, env: { STRATO_PORT_BASE?: string | undefined; STRATO_HOME?: string | undefined } = {}) => {
  const home = planHome(root, env.STRATO_HOME);
  const stack = createHash('sha256').update(home).digest('hex').slice(0, 8);
  const agent = join(home, `agent-${nodeName}`);
  return {
    root,
    home,
    // Outside of .strato: a lock file must stay when `--purge` removes that.
    lock: `/run/strato-${stack}.lock`,
    ports: planPorts(env.STRATO_PORT_BASE),
    kubeconfig: join(home, 'kubeconfig'),
    kubectlCache: join(home, 'kubectl-cache'),
    bin: join(home, 'bin'),
    kubectl: join(home, 'bin', 'kubectl'),
    run: join(home, 'run'),
    logs: join(home, 'logs'),
    log: (name: ProcessName) => join(home, 'logs', `${name}.log`),
    etcd: join(home, 'etcd'),
    pki: join(home, 'pki'),
    guestImage: join(home, 'images', 'guest.qcow2'),
    arm64Image: join(home, 'images', 'guest-arm64.qcow2'),
    operator: { dir: join(home, 'operator'), kubeconfig: join(home, 'operator', 'kubeconfig'), token: join(home, 'operator', 'token') },
    agent: {
      dir: agent,
      config: join(agent, 'config.toml'),
      token: join(agent, 'token'),
      vms: join(agent, 'vms'),
      images: join(agent, 'images'),
      // A Unix socket path ends at 107 bytes, and a clone may lie deep.
      sockets: `/run/strato-${stack}`,
    },
    example: join(root, 'examples', 'first-vm.yaml'),
  };
};

/** Where everything of the stack lies. */
export type Layout = ReturnType<typeof layout>;
