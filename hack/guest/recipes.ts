/** What one of the guests is made of; everything that is the same for all of them is in build.sh and root/. */
export type Recipe = {
  /** Of the artifact in the cache, and of the disk in it. */
  name: 'guest' | 'guest-hw' | 'guest-arm64';
  /** For people who watch it being made. */
  what: string;
  architecture: Architecture;
  /** The meta package that depends on the present kernel. */
  kernel: string;
  /** Further packages that go into it: downloaded and unpacked, never installed. */
  ingredients: readonly string[];
  /** Modules by when they are loaded (root/init): `first`, `scsi` (at once if there is such a host), `later` (the guest is ready). */
  drivers: Readonly<Record<'first' | 'scsi' | 'later', readonly string[]>>;
};

/** Debian's name of a CPU architecture. */
export type Architecture = 'amd64' | 'arm64';

const programs = [
  'busybox-static', 'dropbear-bin', 'libc6', 'libcrypt1', 'libgmp10', 'libtomcrypt1', 'libtommath1', 'zlib1g',
  'qemu-guest-agent', 'libglib2.0-0', 'libnuma1', 'libpcre2-8-0', 'libudev1', 'liburing2',
];

const drivers = {
  first: ['virtio_pci', 'virtio_blk', 'virtio_net', 'vfat', 'nls_cp437', 'nls_ascii', 'button', 'evdev', 'virtio_rng', 'pvpanic_pci', 'nvme'],
  scsi: ['virtio_scsi', 'sd_mod', 'sr_mod', 'isofs'],
  later: ['virtio_console', 'virtio_balloon', 'virtio_mem', 'qemu_fw_cfg', 'vmw_vsock_virtio_transport'],
};

/** The small one, for nearly all tests: BIOS, UEFI and Secure Boot from one disk. */
export const small: Recipe = {
  name: 'guest',
  what: 'guest image',
  architecture: 'amd64',
  kernel: 'linux-image-cloud-amd64',
  ingredients: [...programs, 'shim-signed', 'grub-efi-amd64-signed'],
  drivers,
};

/** With Debian's full kernel, for hardware that the cloud kernel knows nothing of: SATA, watchdogs, USB, NICs of real makers. */
export const hardware: Recipe = {
  ...small,
  name: 'guest-hw',
  what: 'hardware guest image',
  kernel: 'linux-image-amd64',
  drivers: {
    // q35 always has a SATA host, so SCSI is not left for later.
    first: [...drivers.first, 'e1000', 'e1000e', 'ahci', ...drivers.scsi, 'i6300esb', 'ext4', 'crc32c_generic'],
    scsi: [],
    later: [...drivers.later, 'xhci_pci', 'usb_storage', 'uas', 'usbhid', 'hid_generic'],
  },
};

/** For 64-bit Arm, by UEFI only. Its kernel has no pvpanic; its TPM driver is a module. */
export const arm64: Recipe = {
  name: 'guest-arm64',
  what: 'arm64 guest image',
  architecture: 'arm64',
  kernel: 'linux-image-cloud-arm64',
  ingredients: [...programs, 'grub-efi-arm64-signed'],
  drivers: { ...drivers, first: [...drivers.first.filter((name) => name !== 'pvpanic_pci'), 'tpm_tis'] },
};
