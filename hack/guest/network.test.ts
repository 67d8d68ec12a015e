import { describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const mac = '52:54:00:12:34:56';

/** What the guest's script reads from a network-config for a NIC, by the guest's own interpreter. */
const settings = (text: string, nic = 'eth0') => {
  const script = join(import.meta.dirname, 'root/lib/strato/network.awk');
  const ran = spawnSync('busybox', ['awk', '-v', `nic=${nic}`, '-v', `mac=${mac}`, '-f', script], { input: text, encoding: 'utf8' });
  expect(ran.stderr).toBe('');
  return ran.status === 0 ? ran.stdout.trimEnd().split('\n').filter(Boolean) : undefined;
};

describe('network-config of version 2', () => {
  test.each([
    ['DHCP by name', 'version: 2\nethernets:\n  eth0:\n    dhcp4: true\n', ['dhcp']],
    ['no DHCP', 'version: 2\nethernets:\n  eth0:\n    dhcp4: false\n    optional: true\n', []],
    ['under its own key, as netplan has it', 'network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: yes, mtu: 1400}\n', ['mtu 1400', 'dhcp']],
    [
      'static addresses, in block style',
      'version: 2\nethernets:\n  eth0:\n    addresses:\n    - 10.0.0.5/24\n    - "fd00::5/64"\n    gateway4: 10.0.0.1\n    nameservers:\n      search: [a.example, b.example]\n      addresses:\n        - 10.0.0.2\n        - 10.0.0.3\n',
      ['address 10.0.0.5/24', 'address fd00::5/64', 'route default 10.0.0.1', 'dns 10.0.0.2', 'dns 10.0.0.3', 'search a.example', 'search b.example'],
    ],
    ['static addresses, in JSON', `{"version":2,"ethernets":{"x":{"match":{"macaddress":"${mac}"},"addresses":["10.0.0.5/24"]}}}`, ['address 10.0.0.5/24']],
    ['a flow collection over several lines', 'version: 2\nethernets:\n  eth0:\n    addresses: [10.0.0.5/24,\n      10.0.0.6/24]\n', ['address 10.0.0.5/24', 'address 10.0.0.6/24']],
    ['an address with options', 'version: 2\nethernets:\n  eth0:\n    addresses:\n      - "10.0.0.5/24":\n          label: "eth0:1"\n', ['address 10.0.0.5/24']],
    [
      'routes, in the order of the file',
      'version: 2\nethernets:\n  eth0:\n    routes:\n      - to: 0.0.0.0/0\n        via: 10.0.0.1\n      - {to: 10.9.0.0/16, via: 10.0.0.2, metric: 7}\n      - to: default\n        via: fd00::1\n',
      ['route default 10.0.0.1', 'route 10.9.0.0/16 10.0.0.2 7', 'route default fd00::1'],
    ],
    ['a MAC address, in capitals', `version: 2\nethernets:\n  lan:\n    match:\n      macaddress: "${mac.toUpperCase()}"\n    dhcp4: true\n`, ['dhcp']],
    ['a MAC address and a new name', `version: 2\nethernets:\n  lan:\n    match: {macaddress: '${mac}'}\n    set-name: lan0\n    dhcp4: true\n`, ['rename lan0', 'dhcp']],
    ['a pattern', 'version: 2\nethernets:\n  all:\n    match: {name: "e*"}\n    dhcp4: true\n', ['dhcp']],
    ['the first of two', 'version: 2\nethernets:\n  other: {match: {name: "v*"}, mtu: 9000}\n  eth0: {mtu: 1400}\n  all: {match: {name: "*"}, mtu: 1300}\n', ['mtu 1400']],
    ['comments and Windows line ends', '# ours\r\nversion: 2 # yes\r\nethernets:\r\n  eth0: # first\r\n    dhcp4: true\r\n', ['dhcp']],
    ['shell in a value', 'version: 2\nethernets:\n  eth0:\n    addresses: ["10.0.0.5/24;$(reboot)"]\n', ['address 10.0.0.5/24reboot']],
  ])('%s', (_what, text, lines) => {
    expect(settings(text)).toEqual(lines);
  });

  test.each([
    ['another name', 'version: 2\nethernets:\n  eth1:\n    dhcp4: true\n'],
    ['another MAC address', 'version: 2\nethernets:\n  eth0:\n    match: {macaddress: "52:54:00:00:00:00"}\n    dhcp4: true\n'],
    ['version 1', 'version: 1\nconfig:\n  - type: physical\n    name: eth0\n    subnets:\n      - type: dhcp\n'],
    ['nothing', ''],
  ])('%s says nothing of a NIC', (_what, text) => {
    expect(settings(text)).toBeUndefined();
  });

  test('a NIC that has its new name already is not renamed again', () => {
    expect(settings('version: 2\nethernets:\n  lan:\n    match: {name: eth0}\n    set-name: lan0\n    mtu: 1400\n', 'lan0')).toEqual(['mtu 1400']);
  });
});
