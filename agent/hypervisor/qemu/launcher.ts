import { type Platform, platform } from '../../host/platform.ts';
import { blockBytes, runBound, runRecords, serialBound } from './bound.ts';

/** Exit code of the launcher when another process has the VM's lock. */
export const lockedExit = 75;

/** What is written down of a start, in the directory of its run, before there is a launcher. Without it the start was taken back. */
export const startFile = 'start.json';

/** Descriptor of the VM's lock in the supervisor and in its QEMU. */
export const lockFd = 9;

// Bytes: some hundred events, and one block.
const roomForEvents = 65_536;
const roomForExit = 4_096;

// Before `qmp_capabilities` QEMU writes no event.
const greeting = JSON.stringify({ execute: 'qmp_capabilities', id: 'capabilities' });

// An agent keeps the records short, each 5 s. Where none lives a guest must not fill the disk of its neighbours either: the supervisor
// has a child that looks now and then, and acts only on what an agent would not have left. It never has the lock.
// Where the supervisor was killed, this is also how long its tender outlives the machine.
const tendSeconds = 3;
const left = 4;
const arms = [['serial.log', serialBound], ['*', runBound]] as const;

/**
 * The launcher of a machine, and afterwards its supervisor. A fixed text; everything that differs is a positional argument:
 *
 *   DIR RUN STARTID UNIXID GROUPS TPM PROCS... -- QEMU ARG...
 *
 * It joins the VM's cgroups (PROCS are their cgroup.procs), takes the VM's lock, ends when its start was taken back meanwhile, tells under the lock which run has it (`run`),
 * empties the record of the serial console, starts the emulator of its TPM when TPM is the path of a socket, and starts QEMU as the VM's own user, which inherits the lock. Then it waits, and
 * writes how QEMU ended to RUN/exit. It exits with 75 when the lock is another's. Needs dash or any POSIX sh, and what the
 * platform names.
 *
 * Room for what QEMU and the supervisor will tell is taken beforehand, where the file system can: how a guest ended must be known also
 * when the disk is full by then. Opened with `<>`, a file keeps that room.
 *
 * A child of it keeps the records short that the guest can make long, as `boundRecord` does, for as long as QEMU lives.
 *
 * The lock (9) and the writers of the FIFOs (3, 4) are inherited by QEMU too: if the supervisor is killed the lock stays
 * held and QEMU goes on to read its console.
 */
export const launcherText = ({ lockDescriptor, asVm, expendable, reserve }: Pick<Platform, 'lockDescriptor' | 'asVm' | 'expendable' | 'reserve'>): string => `
set -eu
umask 077
dir=$1 run=$2 start=$3 id=$4 groups=$5 tpm=$6
shift 6
while [ "$1" != -- ]; do echo $$ > "$1"; shift; done
shift
${expendable}
cd "$dir"
exec ${lockFd}>>lock
${lockDescriptor(lockFd, 0)} || exit ${lockedExit}
[ -f "$run/${startFile}" ] || exit 1
echo "$start" > run.new
mv -f run.new run
: > serial.log
if [ ! -p serial.in ]; then mkfifo -m 660 serial.in; fi
chgrp "$id" serial.in
chmod 660 serial.in
ln -sfn /dev/null serial.out
mkfifo "$run/qmp.in"
${reserve(roomForEvents, '"$run/events"')}
${reserve(roomForExit, '"$run/exit.new"')}
exec 3<>"$run/qmp.in" 4<>serial.in
printf '%s\\n' '${greeting}' >&3
${asVm}
emulator=
if [ -n "$tpm" ]; then
  rm -f "$tpm"
  as_vm swtpm socket --tpm2 --tpmstate dir=tpm --ctrl "type=unixio,path=$tpm" --terminate </dev/null >>"$run/stderr" 2>&1 3>&- 4>&- &
  emulator=$!
  while [ ! -S "$tpm" ] && kill -0 "$emulator" 2>/dev/null; do sleep 0.005; done
fi
as_vm "$@" <&3 >>"$run/events" 2>>"$run/stderr" &
child=$!
bound() {
  [ "$5" -gt "$2" ] && size=$(wc -c < "$1") && [ "$size" -gt "$2" ] || return 0
  drop=$(((size - $3 - $4) / ${blockBytes} * ${blockBytes}))
  if ! fallocate -c -o "$3" -l "$drop" "$1"; then
    dd if="$1" of="$1" bs=${blockBytes} skip=$((($3 + drop) / ${blockBytes})) seek=$(($3 / ${blockBytes})) count=$(($4 / ${blockBytes} + 1)) conv=notrunc
    dd if=/dev/null of="$1" bs=1 seek=$((size - drop))
  fi
}
(
  trap 'kill $!; wait $! || :; exit' TERM
  while :; do
    sleep ${tendSeconds} &
    wait $!
    kill -0 "$child" || exit
    set -- $(wc -c serial.log ${runRecords.map((name) => `"$run/${name}"`).join(' ')})
    while [ $# -gt 2 ]; do
      case $2 in
${arms.map(([name, { most, head, tail }]) => `      ${name}) bound "$2" ${most * left} ${head} ${tail} "$1" ;;`).join('\n')}
      esac
      shift 2
    done
  done
) 9>&- 3>&- 4>&- </dev/null >/dev/null 2>&1 &
tender=$!
trap : HUP INT TERM
while :; do
  code=0
  wait "$child" || code=$?
  if [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; then continue; fi
  break
done
# It ends with its connection; a QEMU that never made one leaves it waiting, with the lock.
[ -z "$emulator" ] || kill "$emulator" 2>/dev/null || :
echo "$code" 1<>"$run/exit.new"
mv -f "$run/exit.new" "$run/exit"
kill "$tender" 2>/dev/null || :
wait "$tender" 2>/dev/null || :
`;

/** What one launch is told. */
export type Launch = { directory: string; run: string; startId: string; unixId: number; kvmGroup?: number; tpmSocket?: string; procs: readonly string[]; command: readonly string[] };

/** The arguments of `sh` that make a machine. Pure. */
export const launchArgs = ({ directory, run, startId, unixId, kvmGroup, tpmSocket, procs, command }: Launch, on: Platform = platform): string[] => [
  '-c', launcherText(on), 'strato-machine', directory, run, startId, String(unixId), kvmGroup === undefined ? '--clear-groups' : `--groups=${kvmGroup}`, tpmSocket ?? '',
  ...procs, '--', ...command,
];
