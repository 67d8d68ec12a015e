import { adoptOrphanAnnotation, discardOrphanAnnotation } from '#crds/v1alpha1/names.ts';
import type { DiskStatus, VirtualDisk } from '#crds/v1alpha1/virtualdisk.ts';
import type { VmSpec } from '#crds/v1alpha1/virtualmachine.ts';

/**
 * A kept disk that is for a VM: its name in the VM, its VirtualDisk, its uid, its node, and the architecture of the guest that had it.
 *
 *   at: here     its node is connected and has it
 *       gone     its node is connected and does not have it
 *       unheard  its node is silent, or has just connected
 *       unread   our schema refuses the object: perhaps it is for this VM
 *       orphaned no VirtualDisk stands for it: only its node says that it is for this VM
 */
export type Claim = { disk: string; object: string; kept: string; node: string; architecture?: DiskStatus['architecture']; deleting: boolean; at: 'here' | 'gone' | 'unheard' | 'unread' | 'orphaned' };

/** The VM that disks are looked for. */
export type ForVm = { namespace: string; namespaceUid: string | undefined; name: string; disks: VmSpec['disks'] };

/** Where disks are looked for: what is known of their nodes. */
export type ClaimSources = { link: (node: string) => 'connected' | 'joining' | 'silent'; keptDisks: (node: string) => readonly { uid: string }[] };

/** The kept disks that are for a VM. Pure. Only those of its namespace (not of an earlier one of that name), of its name, and of disks that it has. */
export const claimsOf = (
  { namespace, namespaceUid, name, disks }: ForVm,
  objects: readonly VirtualDisk[], { link, keptDisks }: ClaimSources,
): Claim[] => objects.flatMap(({ metadata, status: { uid, nodeName, vmName, diskName, architecture, namespaceUid: of } }): Claim[] => {
  const isFor = metadata.namespace === namespace && vmName === name && of !== undefined && of === namespaceUid && disks.some((disk) => disk.name === diskName && !disk.cdrom);
  if (!isFor || uid === undefined || nodeName === undefined || diskName === undefined) return [];
  const at = link(nodeName) !== 'connected' ? 'unheard' : keptDisks(nodeName).some((each) => each.uid === uid) ? 'here' : 'gone';
  return [{ disk: diskName, object: metadata.name, kept: uid, node: nodeName, ...(architecture === undefined ? {} : { architecture }), deleting: metadata.deletionTimestamp !== undefined, at }];
});

const startAnew = (namespace: string, objects: readonly string[]): string => `to start with a new disk and lose that data: kubectl -n ${namespace} delete virtualdisk ${objects.join(' ')}`;

/**
 * Why a VM can not have its kept disks on a node (on any, when it has none yet): one sentence that names the disk, where it is and what to do. Pure.
 * Undefined when it can. Whether the node of a bound VM has the disk, that node says itself.
 */
export const claimTrouble = (claims: readonly Claim[], namespace: string, node: string | undefined): string | undefined => {
  const unread = claims.find(({ at }) => at === 'unread');
  if (unread) return `the VirtualDisk ${unread.object} can not be read by this version, and a disk of this VM may be in it; update the operator, or ${startAnew(namespace, [unread.object])}`;
  const orphaned = claims.find(({ at }) => at === 'orphaned');
  if (orphaned) {
    const { disk, node: keeper, kept } = orphaned;
    const annotate = (name: string): string => `kubectl annotate hvn ${keeper} --overwrite ${name}=${kept}`;
    return `disk ${disk}: node ${keeper} keeps one of an earlier VM of this name under ${kept}, and no VirtualDisk stands for it; to have it back: ${annotate(adoptOrphanAnnotation)}; to start with a new disk and lose that data: ${annotate(discardOrphanAnnotation)}`;
  }
  const deleting = claims.find((each) => each.deleting);
  if (deleting) return `disk ${deleting.disk}: the VirtualDisk ${deleting.object} on node ${deleting.node} is being deleted; wait until it is gone`;
  const twice = claims.find(({ disk }, at) => claims.some((each, other) => other < at && each.disk === disk));
  if (twice) {
    const all = claims.filter(({ disk }) => disk === twice.disk).map((each) => `${each.object} on node ${each.node}`);
    return `disk ${twice.disk}: more than one VirtualDisk is for it: ${all.join(', ')}; delete those whose data is not wanted`;
  }
  const [first] = claims;
  const place = node ?? first?.node;
  const elsewhere = claims.find((each) => each.node !== place);
  if (elsewhere && node !== undefined) return `disk ${elsewhere.disk} was kept on node ${elsewhere.node} and the VM is on ${node}: create the VM anew to have it there; ${startAnew(namespace, [elsewhere.object])}`;
  if (elsewhere) return `its kept disks are on different nodes (${claims.map((each) => `${each.disk} on ${each.node}`).join(', ')}): it can have those of one node; ${startAnew(namespace, [elsewhere.object])}`;
  if (node !== undefined) return undefined;
  const away = claims.find(({ at }) => at === 'unheard');
  if (away) return `disk ${away.disk} was kept on node ${away.node}, which is silent: bring it back; ${startAnew(namespace, [away.object])}`;
  const gone = claims.find(({ at }) => at === 'gone');
  return gone && `disk ${gone.disk} was kept on node ${gone.node}, which does not have it any more: restore it there; ${startAnew(namespace, [gone.object])}`;
};
