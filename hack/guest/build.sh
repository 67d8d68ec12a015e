#!/bin/bash
# Makes the test guest: one bootable disk with a Debian cloud kernel and a busybox initramfs.
# usage: build.sh OUT KERNEL_ABI PACKAGE=VERSION...   (OUT: an existing folder; KERNEL_ABI such as 6.1.0-56-cloud-amd64)
# Leaves OUT/{guest.qcow2,vmlinuz,initrd}. The same packages and files give the same bytes.
set -euo pipefail
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1700000000
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$1" && pwd) abi=$2
shift 2

drivers=(virtio_pci virtio_blk virtio_net vfat nls_cp437 nls_ascii button evdev virtio_rng isofs virtio_scsi sd_mod sr_mod
  virtio_console virtio_balloon pvpanic_pci qemu_fw_cfg)

work=$out/work
mkdir "$work" "$work/debs" "$work/deb" "$work/initrd"
(cd "$work/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@")
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/deb"; done
cp "$work/deb/boot/vmlinuz-$abi" "$out/vmlinuz"

# The tree: everything in /bin, the other places link there.
root=$work/initrd
mkdir -p "$root"/{bin,dev,etc/acpi/PWRF,home,lib/drivers,lib64,mnt,proc,root,run,sys,tmp,usr/lib,var/log}
ln -s bin "$root/sbin"; ln -s ../bin "$root/usr/bin"; ln -s ../bin "$root/usr/sbin"; ln -s ../run "$root/var/run"
cp "$work/deb/bin/busybox" "$root/bin/"
"$work/deb/bin/busybox" --list | grep -vx -e busybox -e linuxrc | while read -r applet; do ln -s busybox "$root/bin/$applet"; done
printf '#!/bin/sh\nexec /bin/sh "$@"\n' >"$root/bin/bash" # user-data scripts often ask for it by name
chmod 755 "$root/bin/bash"
cp -r "$here/root/." "$root/"
ln -s /lib/strato/power "$root/etc/acpi/PWRF/00000080"
# An empty password field would make busybox skip the line.
echo 'root:*:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo /bin/sh >"$root/etc/shells"

# The SSH server and the libraries it names, by the very loader that will run it.
libraries=$work/deb/lib/x86_64-linux-gnu:$work/deb/usr/lib/x86_64-linux-gnu
loader=$(find "$work/deb" -name 'ld-linux-x86-64.so.2' | head -n 1)
mkdir -p "$root/lib/x86_64-linux-gnu"
for tool in dropbear dropbearkey; do
  program=$(find "$work/deb/usr" -type f -name $tool | head -n 1)
  cp "$program" "$root/bin/"
  listed=$("$loader" --library-path "$libraries" --list "$program")
  missing=$(grep -e 'not found' -e '=> /lib' -e '=> /usr' <<<"$listed" || true)
  if [ -n "$missing" ]; then echo "no package brings:$missing" >&2; exit 1; fi
  awk '/=> \//{print $3}' <<<"$listed" | while read -r library; do
    case $library in *ld-linux*) ;; *) cp -L "$library" "$root/lib/x86_64-linux-gnu/" ;; esac
  done
done
cp -L "$loader" "$root/lib64/ld-linux-x86-64.so.2"

# Drivers with what they depend on, in loading order. A name that is no module must be built into the kernel.
declare -A file seen
while read -r path; do
  name=${path##*/}; name=${name%%.ko*}
  file[${name//-/_}]=$path
done < <(find "$work/deb/lib/modules/$abi" "$work/deb/usr/lib/modules/$abi" -name '*.ko*' 2>/dev/null)
load() {
  local name=${1//-/_} depends next path
  [ -z "${seen[$name]:-}" ] || return 0
  seen[$name]=1
  path=${file[$name]:-}
  if [ -z "$path" ]; then
    find "$work/deb" -name modules.builtin -exec cat {} + | tr - _ | grep -q "/$name\.ko" && return 0
    echo "the kernel $abi has no driver $name" >&2
    return 1
  fi
  case $path in *.xz) xz -dc "$path" ;; *.zst) zstd -qdc "$path" ;; *) cat "$path" ;; esac >"$root/lib/drivers/$name.ko"
  depends=$(tr '\0' '\n' <"$root/lib/drivers/$name.ko" | sed -n 's/^depends=//p')
  for next in ${depends//,/ }; do load "$next"; done
  echo "$name" >>"$root/lib/drivers/order"
}
for driver in "${drivers[@]}"; do load "$driver"; done

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$root" && find . | sort | cpio -o -H newc --quiet --reproducible --owner=0:0) | gzip -9 -n >"$out/initrd"

# One active FAT16 partition with syslinux: boots by BIOS; UEFI has its place there too.
disk=$work/disk.raw
truncate -s 64M "$disk"
printf 'label: dos\nlabel-id: 0x5354524f\nstart=2048, type=ef, bootable\n' | sfdisk -q "$disk"
dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" bs=440 count=1 conv=notrunc status=none
mkfs.vfat -F 16 -s 16 -n STRATO -i 5354524f --invariant --offset 2048 "$disk" 64512 >/dev/null
# The crypto self-tests of a test guest's kernel would take a tenth of its boot.
printf 'SERIAL 0 115200\nPROMPT 0\nNOESCAPE 1\nDEFAULT strato\nLABEL strato\nKERNEL /vmlinuz\nINITRD /initrd\nAPPEND console=ttyS0 quiet cryptomgr.notests\n' >"$work/syslinux.cfg"
touch -d "@$SOURCE_DATE_EPOCH" "$out/vmlinuz" "$out/initrd" "$work/syslinux.cfg"
syslinux -t 1048576 --install "$disk"
mcopy -m -i "$disk@@1048576" "$out/vmlinuz" "$out/initrd" "$work/syslinux.cfg" ::
qemu-img convert -O qcow2 "$disk" "$out/guest.qcow2"
rm -rf "$work"
