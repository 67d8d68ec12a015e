/** One content of the cache, as far as it matters to whether it stays. `linked`: a VM has a hard link, so that removing it frees nothing. */
export type Cached = { sha256: string; fileBytes: number; lastUsedMs: number; linked: boolean };

/** How much a cache may hold, and how long after its last use a content stays whatever the cache holds. */
export type CacheRules = { maxBytes: number; keepMs: number };

/**
 * Which contents go so that the cache holds no more than it may: those that nobody uses, the least recently used first, and at
 * least `atLeast` of them when the file system is full. What is in use counts and stays. Pure.
 */
export const chooseEvictions = (cached: readonly Cached[], inUse: ReadonlySet<string>, rules: CacheRules, nowMs: number, atLeast = 0): string[] => {
  const idle = cached.filter(({ sha256, linked, lastUsedMs }) => !inUse.has(sha256) && !linked && nowMs - lastUsedMs >= rules.keepMs)
    .toSorted((a, b) => a.lastUsedMs - b.lastUsedMs);
  const chosen: string[] = [];
  let held = cached.reduce((sum, { fileBytes }) => sum + fileBytes, 0);
  for (const { sha256, fileBytes } of idle) {
    if (held <= rules.maxBytes && chosen.length >= atLeast) break;
    chosen.push(sha256);
    held -= fileBytes;
  }
  return chosen;
};
