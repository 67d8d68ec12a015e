import { createHash } from 'node:crypto';
import { Fault } from '#crds/kit/fault.ts';

/** A server of the one-machine stack that is built from its published Go module. */
export type ServerName = 'etcd' | 'kube-apiserver' | 'kube-controller-manager' | 'kubectl';

/** Where a server's source is: the wrapper module's folder here, the module it requires, the package to build. */
export type Source = { wrapper: 'etcd' | 'kubernetes'; module: string; package: string };

const kubernetes = (name: string): Source => ({
  wrapper: 'kubernetes',
  module: 'k8s.io/kubernetes',
  package: `k8s.io/kubernetes/cmd/${name}`,
});

/** In the order in which they are built: the quickest first, then what shares most of its packages. */
export const sources = {
  etcd: { wrapper: 'etcd', module: 'go.etcd.io/etcd/server/v3', package: 'go.etcd.io/etcd/server/v3' },
  'kube-apiserver': kubernetes('kube-apiserver'),
  'kube-controller-manager': kubernetes('kube-controller-manager'),
  kubectl: kubernetes('kubectl'),
} satisfies Record<ServerName, Source>;

/** How one server is built: `args` of the go command (the output is added), `version` the key of its cache entry. */
export type Recipe = { name: ServerName; wrapper: Source['wrapper']; args: readonly string[]; version: string };

/**
 * The recipe of a server from the texts of its wrapper's go.mod and go.sum.
 * `platform` is Node's, such as `linux-x64`. Faults: WrapperModule when go.mod does not require the module.
 */
export const planBuild = (name: ServerName, goMod: string, goSum: string, platform: string): Recipe => {
  const source = sources[name];
  const required = goMod.split('\n').map((line) => line.trim().replace(/^require /, '').split(' '));
  const moduleVersion = required.find(([module]) => module === source.module)?.[1];
  if (moduleVersion === undefined) {
    throw new Fault('WrapperModule', `hack/servers/${source.wrapper}/go.mod requires no ${source.module}`, { retry: 'never' });
  }
  const args = ['build', '-mod=readonly', '-trimpath', '-ldflags', linkerFlags(source, moduleVersion), source.package];
  const key = createHash('sha256').update(JSON.stringify([goMod, goSum, args, platform])).digest('hex').slice(0, 12);
  return { name, wrapper: source.wrapper, args, version: `${moduleVersion}-${key}` };
};

// Without these a Kubernetes binary says v0.0.0-master, which kubectl and Helm refuse.
const linkerFlags = (source: Source, version: string): string => {
  if (source.wrapper === 'etcd') return '-s -w';
  const [major = '', minor = ''] = version.replace(/^v/, '').split('.');
  const at = 'k8s.io/component-base/version';
  return `-s -w -X ${at}.gitVersion=${version} -X ${at}.gitMajor=${major} -X ${at}.gitMinor=${minor}`;
};

/** The oldest Go that builds them, as the wrappers' go.mod says. */
export const oldestGo = { major: 1, minor: 25 };

/** Whether `go env GOVERSION` (such as `go1.26.8`) is new enough; development versions (`devel ...`) are taken as new. */
export const goIsNewEnough = (version: string): boolean => {
  if (version.startsWith('devel')) return true;
  const [, major, minor] = /^go(\d+)\.(\d+)/.exec(version) ?? [];
  if (major === undefined || minor === undefined) return false;
  return Number(major) > oldestGo.major || (Number(major) === oldestGo.major && Number(minor) >= oldestGo.minor);
};
