# Shared by the scripts of the tests, benchmarks and packages. Sourced by bash, never run.
#
# Everything that needs the network goes through the machine's own configuration (apt's sources,
# pip's configuration, proxy variables): no host name of a mirror or registry is written here.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$repo/target}"
# Downloads and images that are expensive to make; safe to delete at any time.
cache="${RLESS_TEST_CACHE:-$CARGO_TARGET_DIR/test-cache}"

# Packages by purpose: the one place that names them.
build_packages="gcc libc6-dev libseccomp-dev pkg-config ca-certificates"
run_packages="passt uidmap"
# coreutils-level tools of the tests; the registry and the tools that make images
test_packages="$build_packages $run_packages busybox-static curl debian-archive-keyring docker-registry
  e2fsprogs iproute2 libcap2-bin mmdebstrap procps python3 python3-pip qemu-utils skopeo strace tar umoci
  util-linux xz-utils acl attr openssl patchelf"
vm_packages="mmdebstrap e2fsprogs qemu-system-x86 debian-archive-keyring"
package_packages="$build_packages dpkg-dev lintian xz-utils"
bench_packages="$test_packages crun bubblewrap"

# pjdfstest, the file system conformance suite, from the package registry.
pjdfstest_version=0.2.2

say() { printf '%s\n' "== $*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# The packages of the list that are not installed.
missing_packages() {
    local p
    for p in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s ' "$p"
    done
}

# Installs the packages that are missing when it may (root, or sudo without a password), else names them.
need_packages() {
    local missing sudo=
    command -v dpkg-query >/dev/null || {
        say "not a Debian machine: make sure that these are there: $*"
        return 0
    }
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            sudo="sudo -n"
        else
            die "these packages are missing: ask an administrator for: apt-get install $missing"
        fi
    fi
    say "installing $missing"
    # shellcheck disable=SC2086
    {
        $sudo apt-get update -q >&2 </dev/null || say "apt-get update failed; trying with the lists that are there"
        # A package's own service (the registry's) must not start; the scripts start what they need.
        $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends $missing \
            >&2 </dev/null || die "apt-get could not install: $missing"
    }
}

# cargo, of the version that Cargo.toml asks for.
need_cargo() {
    local wanted have
    [ -z "${HOME:-}" ] || PATH="$PATH:$HOME/.cargo/bin"
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (Debian's is too old)"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
    have=$(cargo --version | sed 's/cargo \([0-9.]*\).*/\1/')
    [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ] ||
        die "cargo $have is too old, rless needs $wanted: rustup update"
}

# A program of the package registry, for `once`: the named version into a directory.
install_crate() { # NAME VERSION DIR
    make_work "$3"
    CARGO_TARGET_DIR="${work:?}" cargo install --quiet --locked --no-track --version "=$2" --root "$3" "$1"
}

# The machine's first Debian mirror and its security mirror, from apt's own configuration.
apt_uris() {
    { # deb822 files, then one-line files
        sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null
        sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null
    } | tr ' ' '\n' | sed 's,/*$,,'
}
debian_mirror() {
    local uri
    uri=$(apt_uris | grep -E '/debian$' | head -n1)
    [ -n "$uri" ] || die "no Debian mirror in /etc/apt: add one"
    printf '%s\n' "$uri"
}

# The machine's apt settings that a root file system needs to reach the same mirror: proxies, checks, certificates.
apt_settings() {
    echo 'Acquire::Retries "5";' # unless the machine says another number
    apt-config dump 2>/dev/null |
        grep -E '^Acquire::(http|https|ftp|Check-Valid-Until|Check-Date|ForceIPv4|Retries)[: ]' |
        grep -v '""' || true
    echo 'Acquire::Languages "none";'
}

# `--add-host NAME:IP` for each mirror host that the machine resolves through its own /etc/hosts.
mirror_hosts() {
    local host line
    for host in $(apt_uris | sed 's,^[a-z+]*://,,; s,[:/].*,,' | sort -u); do
        line=$(awk -v h="$host" '!/^#/ { for (i = 2; i <= NF; i++) if ($i == h) { print $1; exit } }' /etc/hosts)
        [ -z "$line" ] || printf '%s:%s\n' "$host" "$line"
    done
}

# make_debian SUITE OUT [mmdebstrap arguments]: a minbase root (tar or directory) from the machine's mirror.
make_debian() {
    local suite=$1 out=$2 mirror conf opts=() line
    shift 2
    mirror=$(debian_mirror)
    conf=$(mktemp "${TMPDIR:-/tmp}/rless-apt.XXXXXX")
    apt_settings >"$conf"
    while IFS= read -r line; do opts+=("--aptopt=$line"); done <"$conf"
    mmdebstrap --variant=minbase --quiet "${opts[@]}" "$@" "$suite" "$out" "$mirror" >&2 ||
        { rm -f "$conf"; die "mmdebstrap of $suite failed"; }
    rm -f "$conf"
}

# A TCP port that is free, and none of those that connections are given meanwhile.
free_port() {
    python3 -c '
import random, socket
while True:
    with socket.socket() as s:
        port = random.randrange(10000, 32000)
        try:
            s.bind(("127.0.0.1", port))
            break
        except OSError:
            pass
print(port)'
}

# once FILE COMMAND...: makes FILE by running COMMAND with a temporary name as its last argument, three times at most:
# a mirror may fail for a moment. COMMAND runs in a subshell of its own with `set -e` in force: bash ignores -e in
# functions called left of `||`.
once() {
    local _file=$1 _status _try
    shift
    [ -e "$_file" ] && return 0
    mkdir -p "$(dirname "$_file")"
    for _try in 1 2 3; do
        rm -rf "${_file:?}.part"
        say "making ${_file##*/}"
        set +e
        (
            set -e
            "$@" "$_file.part"
        )
        _status=$?
        set -e
        [ $_status -ne 0 ] || break
        say "making ${_file##*/} failed"
    done
    if [ $_status -ne 0 ]; then
        rm -rf "${_file:?}.part"
        die "making ${_file##*/} failed"
    fi
    mv "$_file.part" "$_file"
}

# A temporary directory that goes when the shell (or the subshell that `once` makes) ends. Sets $work, which is
# always written `${work:?}`: a path that begins with an empty variable is the machine's own root.
make_work() {
    work=$(mktemp -d "${1:?}.XXXXXX") || die "no temporary directory beside $1"
    [ -d "$work" ] || die "no temporary directory beside $1"
    trap 'rm -rf "${work:?}"' EXIT
}

# The Debian 13 root with podman of the benchmarks and of tests/podman/record: $cache/bench-root.
make_bench_root() { once "$cache/bench-root" bench_root; }
bench_root() {
    mkdir "$1"
    make_debian trixie "$1" --format=directory \
        --include=podman,crun,bubblewrap,passt,uidmap,python3,strace,libseccomp2,netavark,ca-certificates,tar \
        --include=catatonit,libcap2-bin,procps
}
