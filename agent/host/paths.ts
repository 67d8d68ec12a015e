import { join } from 'node:path';

/** The folders of an agent, from its configuration. */
export type Folders = { stateDir: string; imageCacheDir: string; socketDir: string };

/**
 * Where everything of an agent lies. Paths of a VM derive from its uid, never from a name that a user chose.
 *
 *   stateDir/lock               held as long as an agent lives
 *   stateDir/agent-id           identity of this agent
 *   stateDir/ballast, probe     room for what must be written on a full disk; what is written now and then to see whether it can be
 *   stateDir/accelerator.json   what probe guests told of this node's QEMU
 *   stateDir/ledger/UID.json    what the VM shall be, and what must be remembered of it
 *   stateDir/ended/UID          the tombstone of a VM was carried out; the uid never returns
 *   stateDir/quarantine/        ledger files that could not be read
 *   stateDir/vms/UID/           root:unixId 0750
 *     lock                      held by the process that has the disks; never unlinked while the VM exists
 *     run                       id of the start that has the lock, or had it last
 *     disks/NAME.qcow2          overlay or blank disk, owned by unixId, 0600
 *     disks/NAME.base           hard link to the image, root, 0444
 *     disks/NAME.UID.medium     what lies in a CD drive: hard link to the image, root, 0444
 *     seed.img                  cloud-init NoCloud seed
 *     serial.log, serial.in     record of the serial console since power-on; FIFO of its input (serial.out is /dev/null)
 *     runs/STARTID/             one start: start.json, events, exit, stderr
 *   stateDir/kept/KEPT/         root 0700; NAME.qcow2 and NAME.base of a disk that has outlived its VM, under a uid of its own;
 *                               owner.json: its ledger entry as it is once it is kept, should that be damaged
 *   socketDir/UID/              qmp.sock, tools.sock, qga.sock, vnc.sock (short: Unix socket paths end at 107 bytes)
 */
export const paths = (folders: Folders) => {
  const vm = (uid: string) => join(folders.stateDir, 'vms', uid);
  return {
    agentLock: join(folders.stateDir, 'lock'),
    agentId: join(folders.stateDir, 'agent-id'),
    accelerator: join(folders.stateDir, 'accelerator.json'),
    ballast: join(folders.stateDir, 'ballast'),
    probe: join(folders.stateDir, 'probe'),
    ledger: join(folders.stateDir, 'ledger'),
    ended: join(folders.stateDir, 'ended'),
    quarantine: join(folders.stateDir, 'quarantine'),
    vms: join(folders.stateDir, 'vms'),
    kept: join(folders.stateDir, 'kept'),
    keptRecord: (kept: string) => join(folders.stateDir, 'kept', kept, 'owner.json'),
    vm,
    lock: (uid: string) => join(vm(uid), 'lock'),
    disks: (uid: string) => join(vm(uid), 'disks'),
    /** Relative to the VM's directory, as QEMU is given it. */
    diskFile: (name: string) => `disks/${name}.qcow2`,
    baseFile: (name: string) => `disks/${name}.base`,
    mediumFile: (name: string, image: string) => `disks/${name}.${image}.medium`,
    seedFile: 'seed.img',
    serialLog: (uid: string) => join(vm(uid), 'serial.log'),
    serialInput: (uid: string) => join(vm(uid), 'serial.in'),
    /** Names the run that has the lock, or had it last; the launcher writes it under that lock. */
    runPointer: (uid: string) => join(vm(uid), 'run'),
    runs: (uid: string) => join(vm(uid), 'runs'),
    run: (uid: string, startId: string) => join(vm(uid), 'runs', startId),
    /** Where the guest's end of its agent's port answers. */
    guestAgentSocket: (uid: string) => join(folders.socketDir, uid, 'qga.sock'),
    sockets: (uid: string) => join(folders.socketDir, uid),
    images: folders.imageCacheDir,
    imagesLock: join(folders.imageCacheDir, 'lock'),
  };
};

/** Where everything of an agent lies. */
export type Paths = ReturnType<typeof paths>;
