#!/bin/bash
# Makes a test guest: one bootable disk with a Debian kernel and a busybox initramfs.
# usage: build.sh OUT DISK DEBS ARCHITECTURE KERNEL_ABI GROUP=DRIVER,DRIVER...
#   OUT: an existing folder; DISK: the file that becomes the disk; DEBS: a folder of packages; ARCHITECTURE: amd64 or arm64;
#   KERNEL_ABI: such as 6.1.0-56-cloud-amd64
#   GROUP: drivers that are loaded together (root/init), each with what it depends on; one that is built in is fine.
# Leaves DISK and OUT/{vmlinuz,initrd}. The same packages and files give the same bytes.
set -euo pipefail
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd) image=$2 debs=$3 architecture=$4 abi=$5
shift 5

case $architecture in
  amd64) console=ttyS0 loader=lib64/ld-linux-x86-64.so.2 ;;
  arm64) console=ttyAMA0 loader=lib/ld-linux-aarch64.so.1 ;;
  *) echo "no such architecture: $architecture" >&2; exit 2 ;;
esac
# The crypto self-tests of a test guest's kernel would take a tenth of its boot; zeroed pages and mitigations protect nobody there.
# A kernel that may get memory later reserves 64 MiB of bounce buffers, which no virtio device needs: a small guest would have none left.
command_line="console=$console quiet cryptomgr.notests init_on_alloc=0 mitigations=off memhp_default_state=online_movable swiotlb=noforce"

work=$out/work unpacked=$out/work/deb root=$out/work/initrd
mkdir "$work" "$unpacked" "$root"
for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$unpacked"; done
cp "$unpacked/boot/vmlinuz-$abi" "$out/vmlinuz"

# find_in WHERE NAME: the file of that name in the packages.
find_in() {
  local found
  found=$(find "$unpacked/$1" -name "$2" -print -quit 2>/dev/null)
  [ -n "$found" ] || { echo "no package brings $2" >&2; return 1; }
  echo "$found"
}

# The tree: everything in /bin, the other places link there.
mkdir -p "$root"/{bin,dev,etc/acpi/PWRF,home,lib/drivers,lib/libraries,lib64,mnt,proc,root,run,sys,tmp,usr/lib,var/log}
ln -s bin "$root/sbin"; ln -s ../bin "$root/usr/bin"; ln -s ../bin "$root/usr/sbin"; ln -s ../run "$root/var/run"
cp "$unpacked/bin/busybox" "$root/bin/"
# The machine's own busybox tells the names: that of another architecture can't be run, and it is built from the same source.
busybox --list | grep -vx -e busybox -e linuxrc | while read -r applet; do ln -s busybox "$root/bin/$applet"; done
cp -r "$here/root/." "$root/"
sed -i "s/^CONSOLE:/$console:/" "$root/etc/inittab"
ln -s /lib/strato/power "$root/etc/acpi/PWRF/00000080"
# An empty password field would make busybox skip the line.
echo 'root:*:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo /bin/sh >"$root/etc/shells"

# The SSH server and the guest agent, with the libraries that they name, and the loader.
libraries() {
  local soname
  readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' | while read -r soname; do
    case $soname in ld-linux-*) continue ;; esac
    [ ! -e "$root/lib/libraries/$soname" ] || continue
    cp -L "$(find_in . "$soname")" "$root/lib/libraries/$soname"
    libraries "$root/lib/libraries/$soname"
  done
}
for tool in dropbear dropbearkey qemu-ga; do
  cp "$(find_in usr "$tool")" "$root/bin/"
  libraries "$root/bin/$tool"
done
cp -L "$(find_in lib "${loader##*/}")" "$root/$loader"
# The loader looks in its architecture's folder.
ln -s libraries "$root/lib/$(basename "$(dirname "$(find_in lib libc.so.6)")")"

# Groups of drivers with what they depend on, in loading order, which is also that of the groups.
declare -A file seen
while read -r path; do
  name=${path##*/}; name=${name%%.ko*}
  file[${name//-/_}]=$path
done < <(find "$unpacked/lib/modules/$abi" "$unpacked/usr/lib/modules/$abi" -name '*.ko*' 2>/dev/null)
# load GROUP DRIVER
load() {
  local name=${2//-/_} depends next path
  [ -z "${seen[$name]:-}" ] || return 0
  seen[$name]=1
  path=${file[$name]:-}
  if [ -z "$path" ]; then
    sed 'y/-/_/' "$(find_in . modules.builtin)" | grep "/$name\.ko" >/dev/null && return 0
    echo "the kernel $abi has no driver $name" >&2
    return 1
  fi
  case $path in *.xz) xz -dc "$path" ;; *.zst) zstd -qdc "$path" ;; *) cat "$path" ;; esac >"$root/lib/drivers/$name.ko"
  depends=$(tr '\0' '\n' <"$root/lib/drivers/$name.ko" | sed -n 's/^depends=//p')
  for next in ${depends//,/ }; do load "$1" "$next"; done
  echo "$name" >>"$root/lib/drivers/$1"
}
for group in "$@"; do
  for driver in $(tr , ' ' <<<"${group#*=}"); do load "${group%%=*}" "$driver"; done
done

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# The kernel unpacks lz4 (its old format) three times faster than gzip, which under TCG is half a second.
(cd "$root" && find . | sort | cpio -o -H newc --quiet --reproducible --owner=0:0) | lz4 -l -9 -c >"$out/initrd"

# One active FAT16 partition that both firmwares boot from: syslinux for BIOS; for UEFI the signed chain of Debian (shim, grub,
# kernel), which Secure Boot accepts too. A grub.cfg is where the signed grub looks for it.
disk=$work/disk.raw fat=$work/fat
mkdir -p "$fat/EFI/BOOT" "$fat/EFI/debian"
cp "$out/vmlinuz" "$out/initrd" "$fat"
printf 'linux /vmlinuz %s\ninitrd /initrd\nboot\n' "$command_line" >"$fat/EFI/debian/grub.cfg"
case $architecture in
  amd64)
    cp "$(find_in usr shimx64.efi.signed)" "$fat/EFI/BOOT/BOOTX64.EFI"
    cp "$(find_in usr grubx64.efi.signed)" "$fat/EFI/BOOT/grubx64.efi"
    printf 'SERIAL 0 115200\nPROMPT 0\nNOESCAPE 1\nDEFAULT strato\nLABEL strato\nKERNEL /vmlinuz\nINITRD /initrd\nAPPEND %s\n' "$command_line" >"$fat/syslinux.cfg"
    ;;
  arm64) cp "$(find_in usr grubaa64.efi.signed)" "$fat/EFI/BOOT/BOOTAA64.EFI" ;;
esac
find "$fat" "$out/vmlinuz" "$out/initrd" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
truncate -s 96M "$disk"
printf 'label: dos\nlabel-id: 0x5354524f\nstart=2048, type=ef, bootable\n' | sfdisk -q "$disk"
mkfs.vfat -F 16 -s 16 -n STRATO -i 5354524f --invariant --offset 2048 "$disk" 97280 >/dev/null
if [ "$architecture" = amd64 ]; then
  dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
  syslinux -t 1048576 --install "$disk"
fi
(cd "$fat" && mcopy -s -m -i "$disk@@1048576" -- * ::)
qemu-img convert -O qcow2 "$disk" "$image"
rm -rf "$work"
