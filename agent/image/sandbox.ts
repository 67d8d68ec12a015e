/** What a confined process may use. */
export type Confinement = { unixId: number; addressSpaceBytes: number; fileBytes: number; cpuSeconds: number };

/** A process to start; `uid` and `gid` only where no tool of the platform does it better. */
export type Command = { file: string; args: string[]; uid?: number; gid?: number };

/**
 * The command that runs `argv` confined. Pure. On Linux: an own user without capabilities and without a way to new
 * ones, resource limits, no network, own process namespace (nothing that it forks outlives it), and it dies with
 * the agent. Elsewhere: its own user. Sources: prlimit(1), unshare(1), setpriv(1) of util-linux.
 */
export const confined = (argv: readonly string[], to: Confinement, platform: NodeJS.Platform): Command => {
  const [file = '', ...args] = argv;
  if (platform !== 'linux') return { file, args, uid: to.unixId, gid: to.unixId };
  return {
    file: 'setpriv',
    args: [
      '--pdeathsig', 'KILL', '--',
      'prlimit', `--as=${to.addressSpaceBytes}`, `--fsize=${to.fileBytes}`, `--cpu=${to.cpuSeconds}`, '--nofile=64', '--nproc=256', '--core=0', '--',
      'unshare', '--net', '--ipc', '--pid', '--fork', '--kill-child=KILL', '--',
      // The kernel forgets the parent-death signal when the user changes, so it is set again.
      'setpriv', `--reuid=${to.unixId}`, `--regid=${to.unixId}`, '--clear-groups', '--no-new-privs', '--inh-caps=-all', '--bounding-set=-all', '--pdeathsig', 'KILL', '--',
      ...argv,
    ],
  };
};
