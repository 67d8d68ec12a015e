import { defaultPortBase, planPorts, type Ports } from './layout.ts';

/** The ports of the node that lead to the example VMs' SSH servers. */
export const sshPorts = (ports: Ports): { first: number; own: number } =>
  ports.etcd === defaultPortBase ? { first: 2222, own: 2223 } : { first: ports.operatorHttp + 1, own: ports.operatorHttp + 2 };

/** examples/first-vm.yaml as it is applied: as it stands, but for a stack on other ports than the usual. */
export const exampleFor = (text: string, ports: Ports): string =>
  text
    .replaceAll(`http://127.0.0.1:${planPorts(undefined).images}/`, `http://127.0.0.1:${ports.images}/`)
    .replaceAll('hostPort: 2222', `hostPort: ${sshPorts(ports).first}`);

/** A VM that lets the holder of `publicKey` in; for trying things out. */
export const sshVm = (publicKey: string, ports: Ports): string => `# A VM of your own: ./hack/up has put your key into it. .strato/ssh/id_ed25519 opens it.
apiVersion: strato.dev/v1alpha1
kind: VirtualMachine
metadata:
  name: ssh-vm
spec:
  cpu:
    cores: 1
  memory:
    size: 256Mi
  disks:
    - name: root
      image:
        name: guest
  interfaces:
    - name: net0
      user:
        forwards:
          - name: ssh
            hostPort: ${sshPorts(ports).own}
            port: 22
  cloudInit:
    sshAuthorizedKeys:
      - ${publicKey.trim()}
`;
