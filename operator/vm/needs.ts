import type { VmSpec } from '#crds/v1alpha1/virtualmachine.ts';
import type { DesiredVm } from '#crds/wire/desired.ts';
import type { NodeFacts } from '#crds/wire/observed.ts';
import type { VmFacts } from './facts.ts';

/** Architecture of a guest. */
export type Architecture = NodeFacts['architecture'];

/** What a VM asks of the QEMU of its node. */
export type Board = { architecture: Architecture; firmware: NonNullable<DesiredVm['firmware']>; cpuModel?: string; vsock: boolean; sata: boolean };

/** What a node's QEMU can do. */
export type Skills = { features: ReadonlySet<string>; cpuModels: NodeFacts['cpuModels'] };

/** What a spec asks of the QEMU of its node; `ofImage` is the architecture that its image tells. Pure. */
export const boardOf = ({ architecture, firmware, cpu, devices, disks }: Pick<VmSpec, 'architecture' | 'firmware' | 'cpu' | 'devices' | 'disks'>, ofImage: Architecture | undefined): Board => {
  const guest = architecture ?? ofImage ?? 'amd64';
  return {
    architecture: guest,
    firmware: { type: firmware.type ?? (guest === 'arm64' ? 'uefi' : 'bios'), secureBoot: firmware.secureBoot, tpm: firmware.tpm },
    ...(cpu.model === undefined ? {} : { cpuModel: cpu.model }),
    vsock: devices.vsock,
    sata: disks.some(({ bus }) => bus === 'sata'),
  };
};

/** What tells the architecture of a guest beside its spec; `missing`: only an image could, and that is not there. */
export type ToldArchitecture = { is: 'known'; of: Architecture | undefined } | { is: 'missing'; name: string };

/**
 * The architecture of what the VM boots from, its first disk: that of the guest which had it when it was kept, else that of its image; unknown while there is no such
 * image and nothing else tells it. A VM that was resolved keeps what it had, and one that takes a kept disk back as its spec says is believed. Pure.
 */
export const architectureTold = ({ vm: { spec, status }, images, claims }: Pick<VmFacts, 'vm' | 'images' | 'claims'>): ToldArchitecture => {
  const [first] = spec.disks;
  const name = first?.image?.name;
  const claim = claims.find(({ disk }) => disk === first?.name);
  const known = status.resolved?.architecture ?? (claim && (spec.architecture ?? claim.architecture));
  if (known !== undefined || name === undefined) return { is: 'known', of: known };
  const image = images.get(name);
  return image === undefined && spec.architecture === undefined ? { is: 'missing', name } : { is: 'known', of: image?.architecture };
};

/** What a node's agent says that its QEMU can do. An agent of the first version runs BIOS guests of its own architecture. Pure. */
export const skillsOf = ({ architecture, features, cpuModels }: Pick<NodeFacts, 'architecture' | 'features' | 'cpuModels'>): Skills =>
  ({ features: new Set(features ?? [`arch:${architecture}`]), cpuModels });

/** What a node lacks for a VM, as a sentence without its subject; undefined when it lacks nothing. Pure. */
export const lackOf = ({ architecture, firmware, cpuModel, vsock, sata }: Board, { features, cpuModels }: Skills): string | undefined => {
  if (!features.has(`arch:${architecture}`)) return `can not run ${architecture} guests (QEMU for them is not installed)`;
  if (firmware.type === 'bios' && architecture === 'arm64') return 'can not start arm64 guests by a BIOS: there is none; leave firmware.type out';
  if (firmware.type === 'uefi' && !features.has(`uefi:${architecture}`)) return `has no UEFI firmware for ${architecture}`;
  if (firmware.secureBoot && !features.has(`secureboot:${architecture}`)) return `has no firmware with Secure Boot for ${architecture}`;
  if (sata && architecture === 'arm64') return 'has no SATA for arm64 guests; put the disk on another bus';
  if (firmware.tpm && !features.has('tpm')) return 'has no TPM emulator (swtpm)';
  if (vsock && !features.has('vsock')) return 'has no vsock (/dev/vhost-vsock)';
  if (cpuModel !== undefined && cpuModels?.[architecture]?.includes(cpuModel) !== true) return `does not have all of CPU model ${cpuModel} for ${architecture} guests`;
  return undefined;
};
