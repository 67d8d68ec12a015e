import { readFile } from 'node:fs/promises';
import { messageOf } from '#crds/kit/fault.ts';
import type { Log } from '#crds/kit/log.ts';
import { patience } from '#crds/kit/patience.ts';
import { runTool } from '../../host/exec.ts';
import { guardRules, parseResolvers } from './rules.ts';

/** What keeps guests in user mode from the node's own addresses. */
export type Guard = {
  /** Why it is not in force now. */
  trouble: () => { reason: string; message: string } | undefined;
  /** Looks whether it is in force, and puts it there when it is not. */
  tend: () => Promise<void>;
};

/** `ids`: the Unix ids of guests, both ends included. `resolvConf`: where QEMU finds the resolver of the node. */
export type GuardOptions = { ids: { min: number; max: number }; log: Pick<Log, 'info' | 'warn'>; resolvConf?: string };

const nftMs = 10_000;
const tendEachMs = 5_000;

/**
 * Puts the guard in force and keeps it there until `signal` aborts; it stays behind then, since guests do. Returns when it was
 * tried once, and never throws: `trouble` tells. Needs root and nft(8).
 */
export const startGuard = async ({ ids, log, resolvConf = '/etc/resolv.conf' }: GuardOptions, signal: AbortSignal): Promise<Guard> => {
  const table = `strato_guests_${ids.min}_${ids.max}`;
  let trouble: ReturnType<Guard['trouble']>;
  /** What nft showed of the rules once they were there, and the rules that it was told. */
  let there: { rules: string; shown: string } | undefined;
  let busy: Promise<void> | undefined;

  const nft = async (args: readonly string[], input = ''): Promise<{ ok: boolean; stdout: string; stderr: string }> => {
    const { code, stdout, stderr } = await runTool('nft', args, { input, signal: patience(nftMs) });
    return { ok: code === 0, stdout, stderr };
  };
  const show = async (): Promise<string | undefined> => {
    const { ok, stdout } = await nft(['-s', 'list', 'table', 'inet', table]);
    return ok ? stdout : undefined;
  };
  const look = async (): Promise<void> => {
    try {
      const rules = guardRules({ table, ids, resolvers: parseResolvers(await readFile(resolvConf, 'utf8').catch(() => '')) });
      if (there?.rules === rules && there.shown === (await show())) return;
      if (there?.rules === rules) log.warn({ table }, 'the rules that keep guests from the node were gone or changed; they are put back');
      const { ok, stderr } = await nft(['-f', '-'], rules);
      const shown = ok ? await show() : undefined;
      if (shown === undefined) throw new Error(stderr.trim() || `nft does not show the table ${table}`);
      there = { rules, shown };
      if (trouble) log.info({ table }, 'guests are kept from the node again');
      trouble = undefined;
    } catch (thrown) {
      there = undefined;
      const message = `guests in user mode can not be kept from the addresses of this node, so that none is connected: ${messageOf(thrown)}; `
        + 'make nft work here, or allow it by guard_user_network = false';
      if (trouble?.message !== message) log.warn({ table, err: message }, 'guests can not be kept from the node');
      trouble = { reason: 'GuestsUnguarded', message };
    }
  };
  const tend = (): Promise<void> => (busy ??= look().finally(() => { busy = undefined; }));

  await tend();
  const timer = setInterval(() => void tend(), tendEachMs).unref();
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  return { trouble: () => trouble, tend };
};

/** No guard: guests reach whatever the node reaches, as an administrator has allowed. */
export const unguarded: Guard = { trouble: () => undefined, tend: async () => {} };
