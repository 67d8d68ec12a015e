// Jest global set-up of the project `real`: what its suites run is built before the first of them.
export { makeArtifacts as default } from '../bed/artifacts.ts';
