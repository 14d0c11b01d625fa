# Home Assistant for the test of the MQTT interface: a Debian 13 chroot with Home Assistant in it.
#
# Everything is cached below target/ha; a second run downloads nothing. Home Assistant needs a newer
# Python than Debian 12 has, therefore the chroot; it shares the host's network, so that 127.0.0.1
# is one place for broker, daemon and Home Assistant. Needs root (or sudo) for chroot and mounts.
#
# Sourced by bash with `set -euo pipefail`, from the project's root.

HA=$PWD/target/ha
HA_ROOT=$HA/root
# The version that docs/guide/home-assistant.md names as tried.
HA_VERSION=${HA_VERSION:-2026.2.3}
# Packages of Debian 13 that Home Assistant and the wheels that it builds need.
HA_PACKAGES=ca-certificates,python3,python3-venv,python3-dev,gcc,libc6-dev,libffi-dev,libturbojpeg0
MIRROR=${MIRROR:-$( (cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true) |
    sed -n 's,^\(URIs:\|deb\) *\(http[^ ]*/debian\)/\?\( .*\)\?$,\2,p' | sed -n 1p)}
[ -n "$MIRROR" ] || { echo "error: no Debian mirror in the sources of apt; set MIRROR=URL" >&2; exit 1; }

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

HA_AS_ROOT=()
[ "$(id -u)" = 0 ] || HA_AS_ROOT=(sudo --preserve-env)

# ha_host_tools: what the host needs beside the daemon.
ha_host_tools() {
    local missing=()
    command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] || missing+=(debootstrap)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    "${HA_AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" </dev/null >"$HA/apt-install.log" 2>&1 ||
        die "apt-get install ${missing[*]} failed, see $HA/apt-install.log"
}

# ha_chroot COMMAND...: runs a command in the chroot. Its mounts live in a name space of their own,
# so that nothing is left mounted however the command ends; it dies with the caller.
ha_chroot() {
    # shellcheck disable=SC2016
    "${HA_AS_ROOT[@]}" env -u PIP_FIND_LINKS unshare --mount --propagation private -- /bin/sh -c '
        root=$1; shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mkdir -p "$root/srv/ha"
        mount --bind "$root/../state" "$root/srv/ha"
        exec setpriv --pdeathsig KILL chroot "$root" "$@"' sh "$HA_ROOT" "$@"
}

# The host's ways to the network hold in the chroot too: names, authorities, pip's index.
ha_network() {
    local file
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
        [ ! -e "$file" ] || "${HA_AS_ROOT[@]}" cp -L "$file" "$HA_ROOT$file"
    done
    [ ! -d /usr/local/share/ca-certificates ] || "${HA_AS_ROOT[@]}" \
        cp -rL /usr/local/share/ca-certificates/. "$HA_ROOT/usr/local/share/ca-certificates/"
    ha_chroot /usr/sbin/update-ca-certificates >"$HA/ca-certificates.log" 2>&1 ||
        die "update-ca-certificates failed, see $HA/ca-certificates.log"
}

# ha_install: the chroot and Home Assistant in it; a version that is there already is kept.
ha_install() {
    mkdir -p "$HA/state"
    [ "$(cat "$HA/installed" 2>/dev/null)" = "$HA_VERSION" ] && return
    ha_host_tools
    if [ ! -e "$HA/bootstrapped" ]; then
        say "Debian 13 from $MIRROR into $HA_ROOT"
        "${HA_AS_ROOT[@]}" rm -rf "$HA_ROOT"
        "${HA_AS_ROOT[@]}" env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase \
            --include="$HA_PACKAGES" trixie "$HA_ROOT" "$MIRROR" >"$HA/debootstrap.log" 2>&1 ||
            die "debootstrap failed, see $HA/debootstrap.log"
        touch "$HA/bootstrapped"
    fi
    ha_network
    say "Home Assistant $HA_VERSION into $HA_ROOT"
    rm -f "$HA/installed"
    cp tests/ha/requirements.py "$HA/state/"
    ha_chroot /bin/sh -c "set -e; python3 -m venv /opt/ha; export PIP_CACHE_DIR=/var/cache/pip
        /opt/ha/bin/pip install -q homeassistant==$HA_VERSION
        /opt/ha/bin/python /srv/ha/requirements.py >/tmp/requirements.txt
        /opt/ha/bin/pip install -q -r /tmp/requirements.txt" >"$HA/pip.log" 2>&1 ||
        die "Home Assistant cannot be installed, see $HA/pip.log"
    echo "$HA_VERSION" >"$HA/installed"
}
