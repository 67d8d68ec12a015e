// Two projects: `unit` (pure code and fakes, under a minute) and `real` (*.real.test.ts: real etcd, kube-apiserver, QEMU), whose suites run side by side.
const common = {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '\\.ts$': '<rootDir>/hack/jest/strip.mjs' },
  modulePathIgnorePatterns: ['<rootDir>/\\.strato/'],
};
const real = '\\.real\\.test\\.ts$';

export default {
  reporters: ['default', '<rootDir>/hack/jest/tally.mjs'],
  testSequencer: '<rootDir>/hack/jest/sequencer.mjs',
  // What a suite has loaded stays in memory after it.
  workerIdleMemoryLimit: '500MB',
  // Unit tests take milliseconds, but not on a machine whose cores have other work.
  testTimeout: 60_000,
  projects: [
    { ...common, displayName: 'unit', testMatch: ['**/*.test.ts'], testPathIgnorePatterns: ['/node_modules/', real] },
    { ...common, displayName: 'real', testRegex: [real], globalSetup: '<rootDir>/hack/jest/artifacts.mjs' },
  ],
};
