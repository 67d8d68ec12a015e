import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { uidOf } from '../../vm/bed.ts';
import { type Cgroups, usesSystemd } from './cgroup.ts';
import { openScopes, scopeCommand } from './scope.ts';

const uid = uidOf(1);
const own: Cgroups = { make: async () => ['never'], command: (_uid, _start, argv) => [...argv], pids: async () => [7], oomKills: async () => 3, remove: async () => {} };

describe('machines where systemd runs the node', () => {
  test('start in a scope of their own, in the slice of machines, and stay our children', () => {
    expect(scopeCommand(uid, 'a1', ['/bin/sh', '-c', 'text', '--x'])).toEqual([
      'systemd-run', '--scope', '--quiet', '--collect', `--unit=strato-vm-${uid}-a1`, '--slice=strato.slice', `--description=Strato VM ${uid}`, '--', '/bin/sh', '-c', 'text', '--x',
    ]);
  });

  test('have no group that we make; their processes are those of their scopes, and of a group from before', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'strato-scope-'));
    try {
      for (const [name, pids] of [[`strato-vm-${uid}-a1.scope`, '11\n12\n'], [`strato-vm-${uid}-b2.scope`, ''], [`strato-vm-${uidOf(2)}-c3.scope`, '13\n']] as const) {
        await mkdir(join(folder, 'strato.slice', name), { recursive: true });
        await writeFile(join(folder, 'strato.slice', name, 'cgroup.procs'), pids);
      }
      const scopes = openScopes(own, [{ version: 2, directory: folder, controllers: [] }, { version: 1, directory: join(folder, 'none'), controllers: ['memory'] }]);
      expect([await scopes.make(uid), await scopes.pids(uid), await scopes.pids(uidOf(3))]).toEqual([[], [7, 11, 12], [7]]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test.each([[true, true, true], [true, false, false], [false, true, false]])('systemd runs it: %s, its tool is there: %s: %s', (booted, tool, uses) => {
    expect(usesSystemd((file) => (file === '/run/systemd/system' ? booted : file === '/usr/bin/systemd-run' && tool), '/bin:/usr/bin')).toBe(uses);
  });
});
