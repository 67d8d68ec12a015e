import type { CacheRules } from './evict.ts';
import type { ImportLimits } from './import.ts';

const mebibyte = 1024 * 1024;
const hour = 3_600_000;

/** Bounds that suit most nodes, for disks of at most `maxSizeMiB`. */
export const limitsFor = (maxSizeMiB: number): ImportLimits => ({
  fetch: {
    connectMs: 30_000, idleMs: 60_000, totalMs: 6 * hour, maxRedirects: 5, resumes: 5, keepFreeBytes: 512 * mebibyte,
    // A qcow2 that is full is larger than its disk, by its tables.
    maxBytes: maxSizeMiB * mebibyte + maxSizeMiB * (mebibyte / 256) + 64 * mebibyte,
  },
  convert: { deadlineMs: hour, addressSpaceBytes: 2048 * mebibyte, cpuSeconds: 1800 },
  maxVirtualBytes: maxSizeMiB * mebibyte,
});

/** How much of the node's disk images may take, and how long one that was just used stays: who deletes a VM often creates it anew. */
export const cacheOf = (maxSizeMiB: number): CacheRules => ({ maxBytes: maxSizeMiB * mebibyte, keepMs: 600_000 });

/** A cache that suits most nodes. */
export const usualCache = cacheOf(50 * 1024);
