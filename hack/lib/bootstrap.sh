# Sourced by hack/test, hack/up: checks what a machine must have, all at once, then installs the rest.
# Sets NODE to the Node.js 24 of the lock file.

need() { problems+=("$1"$'\n'"    $2"); }

check_machine() {
  local problems=() major go_minor free_mib cache=${STRATO_CACHE:-$HOME/.cache/strato}
  [ "$(id -u)" = 0 ] || need "not root" "run it as root: it makes cgroups and runs QEMU under users of its own"
  command -v apt-get >/dev/null || need "no apt-get" "use Debian 12 or a relative of it, or install the packages of hack/packages yourself"
  major=$(node --version 2>/dev/null | sed -E 's/^v([0-9]+).*/\1/')
  [ "${major:-0}" -ge 20 ] || need "Node.js >= 20 is missing (found: $(node --version 2>/dev/null || echo none))" "install it; it only bootstraps npm, Node.js 24 comes with npm ci"
  command -v npm >/dev/null || need "npm is missing" "install npm"
  go_minor=$(go env GOVERSION 2>/dev/null | sed -E 's/^go1\.([0-9]+).*/\1/')
  [ "${go_minor:-0}" -ge 25 ] || need "Go >= 1.25 is missing (found: $(go env GOVERSION 2>/dev/null || echo none))" "install it; etcd and the Kubernetes servers are built from their modules"
  mkdir -p "$cache"
  free_mib=$(df -Pm "$cache" | awk 'NR==2 {print $4}')
  [ "$free_mib" -ge 6144 ] || need "only $free_mib MiB are free in $cache" "free 6 GiB, or set STRATO_CACHE to a larger file system"
  [ ${#problems[@]} = 0 ] && return 0
  echo "This machine lacks what Strato needs:" >&2
  printf '  - %s\n' "${problems[@]}" >&2
  return 1
}

install_packages() {
  local missing
  missing=$(while read -r package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || echo "$package"
  done < hack/packages)
  [ -z "$missing" ] && return 0
  echo "installing Debian packages:" $missing
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

install_modules() {
  local want
  want=$(sha256sum package-lock.json | cut -c1-64)
  [ "$(cat node_modules/.strato-lock 2>/dev/null)" = "$want" ] && return 0
  echo "installing npm packages"
  npm ci --no-audit --no-fund --loglevel=error
  echo "$want" > node_modules/.strato-lock
}

bootstrap() {
  check_machine
  install_packages
  install_modules
  NODE=$PWD/node_modules/.bin/node
}
