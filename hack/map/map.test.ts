import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { importsOf, wrongWith } from './map.ts';
import { wrongImports } from './wrong.ts';

test('every import of the repository keeps to the map', () => {
  const { files, wrong } = wrongImports(join(import.meta.dirname, '..', '..'));
  expect(files).toBeGreaterThan(200);
  expect(wrong).toEqual([]);
});

test.each([
  ['operator/vm/decide.ts', '#agent/vm/plan.ts', 'operator may not import agent'],
  ['agent/main.ts', '#operator/kube/client.ts', 'agent may not import operator'],
  ['crds/kit/fault.ts', '#operator/term.ts', 'crds may not import operator'],
  ['agent/main.ts', '#hack/bed/until.ts', 'agent may not import hack'],
  ['agent/vm/plan.ts', 'node:fs/promises', 'what decides imports no package and does nothing'],
  ['agent/vm/worker.ts', '@kubernetes/client-node', '@kubernetes/client-node is used in ^operator\\/kube\\/ alone'],
  ['agent/vm/worker.ts', '../../operator/term.ts', 'leaves its room by a path; say #room/...'],
  ['crds/kit/fault.ts', 'pino', 'crds imports nothing but zod and Node'],
])('%s may not import %s', (file, names, why) => {
  expect(wrongWith({ file, names })).toBe(why);
});

test.each([
  ['operator/vm/decide.ts', '#crds/kit/fault.ts'], ['agent/hypervisor/qemu/events.ts', 'zod'], ['agent/link/link.test.ts', '#hack/bed/until.ts'],
  ['hack/sim/node.ts', '#agent/agent.ts'], ['operator/kube/client.ts', '@kubernetes/client-node'], ['agent/vm/pass.ts', './plan.ts'],
])('%s may import %s', (file, names) => {
  expect(wrongWith({ file, names })).toBeUndefined();
});

test('imports of every form are found', () => {
  expect(importsOf('a.ts', "import x, {\n  y,\n} from 'one';\nexport type { z } from './two.ts';\nimport 'three';\nconst a = await import('four');\nconst b = 'from \\'five\\'';\n").map(({ names }) => names))
    .toEqual(['one', './two.ts', 'three', 'four']);
});
