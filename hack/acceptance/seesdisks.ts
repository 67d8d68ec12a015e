/** User-data of a guest that says on its console what disks it sees, by their serial numbers, whenever that changes. */
export const seesDisks = `#!/bin/sh
serial_of() {
  case $1 in
    vd*) cat /sys/block/$1/serial ;;
    nvme*) cat /sys/block/$1/device/serial ;;
    *) tail -c +5 /sys/block/$1/device/vpd_pg80 ;;
  esac 2>/dev/null | tr -dc 'A-Za-z0-9._-'
}
( mkdir -p /run/sees; cd /run/sees
  while :; do
    for at in /sys/block/vd* /sys/block/sd* /sys/block/nvme* /sys/block/sr*; do
      [ -e "$at/size" ] || continue
      name=$(serial_of "\${at##*/}"); [ -n "$name" ] || continue
      now=$(($(cat $at/size) * 512))
      [ -e "$name" ] && [ "$(cat "$name")" = "$now \${at##*/}" ] && continue
      echo "$now \${at##*/}" > "$name"
      echo "SEES $name=$now ro=$(cat $at/ro) as \${at##*/}" > /dev/ttyS0
    done
    for name in *; do
      [ -e "$name" ] || continue
      disk=$(cut -d' ' -f2 "$name")
      [ "$(serial_of "$disk")" = "$name" ] && continue
      rm "$name"; echo "SEES $name=gone" > /dev/ttyS0
    done
    sleep 1
  done ) &
`;
