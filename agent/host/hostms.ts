/**
 * Milliseconds of the node's monotonic clock. They never go back, go on over restarts of the agent, and begin anew with each
 * boot, so a kept value means something only together with the boot id. Source: uv_hrtime of libuv,
 * CLOCK_MONOTONIC on Linux, clock_gettime(2): it stands still while the node sleeps. (`performance.now()` begins with the
 * process.)
 */
export const hostMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);
