import { isAbsolute, relative } from 'node:path';
import { sshPorts } from './example.ts';
import type { Layout } from './layout.ts';

/** What is told at the end: what runs, where the kubeconfig is, and five commands that work. */
export const farewell = (at: Layout, pids: readonly { name: string; pid: number }[], vm: { uid: string; how: string } | undefined): string => {
  const seen = (file: string) => {
    const path = relative(at.root, file);
    return path.startsWith('..') || isAbsolute(path) ? file : path;
  };
  const running = pids.map(({ name, pid }) => `  ${name.padEnd(24)} pid ${String(pid).padEnd(8)} ${seen(at.logs)}/${name}.log`);
  const serial = vm === undefined ? `${seen(at.agent.vms)}/*/serial.log` : `${seen(at.agent.vms)}/${vm.uid}/serial.log`;
  return [
    '',
    'What runs:',
    ...running,
    ...(vm === undefined ? [] : [`  ${'first-vm'.padEnd(24)} ${vm.how}`]),
    '',
    `Kubeconfig: ${seen(at.kubeconfig)}`,
    `  export KUBECONFIG=${at.kubeconfig} PATH=${at.bin}:$PATH`,
    '',
    'Try next:',
    '  kubectl get vm,vmimage,hvn -o wide',
    `  tail -f ${serial}`,
    `  kubectl patch vm first-vm --type=merge -p '{"spec":{"powerState":"Stopped"}}'`,
    `  kubectl apply -f ${seen(at.home)}/ssh-vm.yaml && kubectl wait --for=condition=Ready vm/ssh-vm --timeout=2m`,
    `  ssh -i ${seen(at.home)}/ssh/id_ed25519 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p ${sshPorts(at.ports).own} root@127.0.0.1    # some ten seconds later`,
    '',
    './hack/down ends all of it; ./hack/up can be run again at any time.',
  ].join('\n');
};
