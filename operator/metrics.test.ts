import { expect, test } from '@jest/globals';
import { makeMetrics } from './metrics.ts';

test('the steps of first starts are a histogram, each by its name; what is in the caches is read when somebody asks', async () => {
  const figures = { nodes: 1, virtualMachines: 2, images: 3 };
  const { registry, stepTaken } = makeMetrics(() => figures);
  stepTaken({ step: 'running', seconds: 0.2 });
  stepTaken({ step: 'running', seconds: 0.3 });
  stepTaken({ step: 'guestReady', seconds: 4 });
  figures.virtualMachines = 7;
  const text = await registry.metrics();
  for (const line of [
    'strato_vm_first_start_seconds_count{step="running"} 2', 'strato_vm_first_start_seconds_bucket{le="0.25",step="running"} 1',
    'strato_vm_first_start_seconds_sum{step="guestReady"} 4', 'strato_virtual_machines 7',
  ]) expect(text.split('\n')).toContain(line);
});
