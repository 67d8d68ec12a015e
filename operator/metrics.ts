import { collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { TimedStep } from './vm/guest.ts';

/** What the operator counts. Source: Prometheus, "Writing exporters". */
export type Metrics = {
  registry: Registry;
  /** A VM has come a step further for the first time. */
  stepTaken: (step: TimedStep) => void;
};

/** The operator's metrics; `figures` is read whenever somebody asks. */
export const makeMetrics = (figures: () => Readonly<Record<'nodes' | 'virtualMachines' | 'images', number>>): Metrics => {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, read: () => number) => new Gauge({ name, help, registers: [registry], collect() { this.set(read()); } });
  gauge('strato_hypervisor_nodes', 'HypervisorNodes in the cache', () => figures().nodes);
  gauge('strato_virtual_machines', 'VirtualMachines in the cache', () => figures().virtualMachines);
  gauge('strato_virtual_machine_images', 'VirtualMachineImages in the cache', () => figures().images);
  const steps = new Histogram({
    name: 'strato_vm_first_start_seconds', help: 'Time of each step of the first start of a VM, since the step before', labelNames: ['step'], registers: [registry],
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900],
  });
  return { registry, stepTaken: ({ step, seconds }) => steps.observe({ step }, seconds) };
};
