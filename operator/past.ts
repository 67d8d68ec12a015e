/**
 * What goes from one term of a process into the next: the newest versions that it has seen of the cluster, by what they are of, so that an older state of
 * it is known for one; and that it was restored to such a state. Then nodes may hold what the API has forgotten, until every one has said what it holds.
 */
export type Past = { wentBack: boolean; newest: Map<string, string> };

/** The past of a process that has just begun. */
export const noPast = (): Past => ({ wentBack: false, newest: new Map() });

/** The cluster was restored to an older state: versions of the history that is no more say nothing about this one. */
export const noteWentBack = (past: Past): void => {
  past.wentBack = true;
  past.newest.clear();
};

/** Remembers a version, if there is one. */
export const noteNewest = (past: Past, of: string, version: string | undefined): void => {
  if (version !== undefined) past.newest.set(of, version);
};
