type Signature = { name: string; at: number; bytes: string; from?: 'end' };

// Signatures as in QEMU's block/*.c (bdrv_probe) and the file formats' own specifications. A raw disk begins with a boot
// sector or a partition table, never with one of these.
const signatures: readonly Signature[] = [
  { name: 'qcow2', at: 0, bytes: 'QFI\xfb' },
  { name: 'VMDK', at: 0, bytes: 'KDMV' },
  { name: 'VMDK', at: 0, bytes: 'COWD' },
  { name: 'a VMDK descriptor', at: 0, bytes: '# Disk DescriptorFile' },
  { name: 'VHDX', at: 0, bytes: 'vhdxfile' },
  { name: 'VHD', at: 0, bytes: 'conectix' },
  { name: 'VHD', at: 512, bytes: 'conectix', from: 'end' },
  { name: 'VDI', at: 64, bytes: '\x7f\x10\xda\xbe' },
  { name: 'QED', at: 0, bytes: 'QED\0' },
  { name: 'Parallels', at: 0, bytes: 'WithoutFreeSpace' },
  { name: 'Parallels', at: 0, bytes: 'WithouFreSpacExt' },
  { name: 'a LUKS container', at: 0, bytes: 'LUKS\xba\xbe' },
  { name: 'Bochs', at: 0, bytes: 'Bochs Virtual HD Image' },
  { name: 'cloop', at: 0, bytes: '#!/bin/sh\n#V2.0 Format\n' },
  { name: 'DMG', at: 512, bytes: 'koly', from: 'end' },
  { name: 'gzip', at: 0, bytes: '\x1f\x8b' },
  { name: 'xz', at: 0, bytes: '\xfd7zXZ\0' },
  { name: 'zstd', at: 0, bytes: '\x28\xb5\x2f\xfd' },
  { name: 'bzip2', at: 0, bytes: 'BZh' },
  { name: 'lz4', at: 0, bytes: '\x04\x22\x4d\x18' },
  { name: 'zip', at: 0, bytes: 'PK\x03\x04' },
  { name: '7z', at: 0, bytes: '7z\xbc\xaf\x27\x1c' },
  { name: 'tar (an OVA?)', at: 257, bytes: 'ustar' },
  { name: 'a web page', at: 0, bytes: '<!DOCTYPE' },
  { name: 'a web page', at: 0, bytes: '<!doctype' },
  { name: 'a web page', at: 0, bytes: '<html' },
  { name: 'XML', at: 0, bytes: '<?xml' },
];

/**
 * The format that the bytes of a file say it is, for the message of a refusal; undefined when none is recognised.
 * Pure. `head` is at least the first 512 bytes, `tail` the last 512 (or all there is).
 */
export const foreignFormat = (head: Uint8Array, tail: Uint8Array): string | undefined => {
  const start = Buffer.from(head.buffer, head.byteOffset, Math.min(head.byteLength, 512)).toString('latin1');
  const end = Buffer.from(tail.buffer, tail.byteOffset, tail.byteLength).toString('latin1');
  return signatures.find(({ at, bytes, from }) =>
    from === 'end' ? end.length >= at && end.startsWith(bytes, end.length - at) : start.startsWith(bytes, at))?.name;
};
