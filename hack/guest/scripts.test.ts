import { describe, expect, test } from '@jest/globals';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// The guest's own interpreter: its regular expressions and formats differ from other awks.
const awk = (program: string, input: string, ...args: string[]) => {
  const ran = spawnSync('busybox', ['awk', ...args, '-f', join(import.meta.dirname, 'root/lib/strato', program)], { input, encoding: 'utf8' });
  expect([ran.status, ran.stderr]).toEqual([0, '']);
  return ran.stdout.trimEnd().split('\n').filter(Boolean);
};
const ed = (name: string) => `ssh-ed25519 AAAAC3Nza${name}+/= ${name}@host`;

describe('keys of a seed', () => {
  test.each([
    ['top level, a block', `#cloud-config\nssh_authorized_keys:\n  - ${ed('a')}\n  - "${ed('b')}"\n`, [`root ${ed('a')}`, `root ${ed('b')}`]],
    ['top level, unindented', `#cloud-config\nssh_authorized_keys:\n- ${ed('a')}\npackages:\n- x\n`, [`root ${ed('a')}`]],
    ['top level, in one line', `#cloud-config\nssh_authorized_keys: ["${ed('a')}", '${ed('b')}']\n`, [`root ${ed('a')}`, `root ${ed('b')}`]],
    ['the older spelling', `#cloud-config\nssh-authorized-keys:\n  - ${ed('a')}\n`, [`root ${ed('a')}`]],
    ['Windows line ends', `#cloud-config\r\nssh_authorized_keys:\r\n  - ${ed('a')}\r\n`, [`root ${ed('a')}`]],
    ['JSON', `#cloud-config\n{"ssh_authorized_keys":["${ed('a')}"]}`, [`root ${ed('a')}`]],
    ['a user', `users:\n  - default\n  - name: alice\n    ssh_authorized_keys:\n      - ${ed('a')}\n    shell: /bin/sh\n`, [`alice ${ed('a')}`]],
    ['the default user', `users:\n  - name: default\n    ssh_authorized_keys:\n    - ${ed('a')}\n`, [`root ${ed('a')}`]],
    [
      'users, keys before the name',
      `users:\n- ssh_authorized_keys:\n  - ${ed('a')}\n  name: bob\n- name: alice\n  ssh_authorized_keys: [${ed('b')}]\nssh_authorized_keys:\n- ${ed('c')}\n`,
      [`bob ${ed('a')}`, `alice ${ed('b')}`, `root ${ed('c')}`],
    ],
    ['a key of another type', `ssh_authorized_keys:\n  - ecdsa-sha2-nistp256 AAAAE2V= x\n`, ['root ecdsa-sha2-nistp256 AAAAE2V= x']],
    ['meta-data', `instance-id: i\npublic-keys:\n  - ${ed('a')}\nlocal-hostname: x\n`, [`root ${ed('a')}`]],
    ['a comment', `#cloud-config\n# ssh_authorized_keys: [${ed('a')}]\n`, []],
    ['a key elsewhere', `#cloud-config\nwrite_files:\n  - content: ${ed('a')}\n    path: /x\n`, []],
    ['a key after the list', `ssh_authorized_keys:\n  - ${ed('a')}\nruncmd:\n  - echo ${ed('b')}\n`, [`root ${ed('a')}`]],
    ['a hostile user name', `users:\n  - name: ../root\n    ssh_authorized_keys: [${ed('a')}]\n`, []],
  ])('%s', (_what, text, keys) => {
    expect(awk('keys.awk', text)).toEqual(keys);
  });
});

test('user-data of several MIME parts is split in order, with types and encodings', () => {
  const dir = mkdtempSync(join(tmpdir(), 'strato-mime-'));
  try {
    const text = [
      'Content-Type: multipart/mixed; boundary="==X=="',
      'MIME-Version: 1.0',
      '',
      '--==X==',
      'Content-Type: text/cloud-config; charset="us-ascii"',
      '',
      '#cloud-config',
      'hostname: x',
      '--==X==',
      'Content-Transfer-Encoding: base64',
      'Content-Type: text/x-shellscript',
      '',
      'IyEvYmluL3NoCg==',
      '--==X==--',
      'epilogue',
    ].join('\r\n');
    expect(awk('mime.awk', text, '-v', `dir=${dir}`)).toEqual([
      `${dir}/part-001 text/cloud-config 7bit`,
      `${dir}/part-002 text/x-shellscript base64`,
    ]);
    expect(readFileSync(join(dir, 'part-001'), 'utf8')).toBe('#cloud-config\nhostname: x\n');
    expect(readFileSync(join(dir, 'part-002'), 'utf8')).toBe('IyEvYmluL3NoCg==\n');
  } finally {
    rmSync(dir, { recursive: true });
  }
});
