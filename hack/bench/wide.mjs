// Preloaded into an agent under measurement: its node has more processors than this machine, so that a bench may place more VMs on it.
import os from 'node:os';
import { syncBuiltinESMExports } from 'node:module';

const real = os.cpus();
os.cpus = () => Array.from({ length: 64 }, (_, at) => real[at % real.length]);
syncBuiltinESMExports();
