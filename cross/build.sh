#!/bin/bash
# Builds facelatch and its packages; runs inside the build system that setup.sh makes, in the source
# tree: build.sh amd64|arm64... Everything it writes lies in target/cross and target/package.
#
#   MODELS=folder    models.dir with the pack `standard`, complete; makes facelatch-models-standard
#   MODELS_MAY_LACK=yes   no package of the models when the pack is not complete, instead of an error
#   STAGE=manual     only the manual pages, the completions and the bill of materials (for a try)
#   STAGE=check      only the program, without optimisation, and what it asks of a system
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

# The oldest system that the packages are for: JetPack 5 (Ubuntu 20.04) has glibc 2.31 and the
# libstdc++ of GCC 10; Debian 11 has the same. Neither the program nor ONNX Runtime may want more.
GLIBC_MAX=2.31
GLIBCXX_MAX=3.4.28

OUT=target/package
WORK=target/cross
export CARGO_HOME=${CARGO_HOME:-$PWD/$WORK/cargo} CARGO_TARGET_DIR=$PWD/$WORK/build
# An interrupted build is resumed by crates; incremental files would only take space.
export CARGO_INCREMENTAL=0 PATH=/usr/local/bin:/usr/bin:/bin

say() { printf '\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
megabytes() { awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }

# wants FILE SYMBOLS: the newest version of the symbols that a file takes from a library, 0 for none.
wants() {
    { readelf --version-info --wide "$1" | grep -o "Name: $2_[0-9.]*" || true; } |
        sed 's/.*_//' | sort -V | tail -1 | grep . || echo 0
}
at_most() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -1)" = "$2" ]; }

# floor FILE: fails when a file needs a newer system than promised, else tells what it needs.
floor() {
    local glibc glibcxx
    glibc=$(wants "$1" GLIBC) glibcxx=$(wants "$1" GLIBCXX)
    at_most "$glibc" "$GLIBC_MAX" || die "$1 needs glibc $glibc, promised is $GLIBC_MAX"
    at_most "$glibcxx" "$GLIBCXX_MAX" || die "$1 needs GLIBCXX_$glibcxx, promised is $GLIBCXX_MAX"
    [ "$glibcxx" = 0 ] && echo "glibc >= $glibc" || echo "glibc >= $glibc, GLIBCXX >= $glibcxx"
}

triple() { case $1 in arm64) echo aarch64 ;; amd64) echo x86_64 ;; *) die "unknown architecture $1" ;; esac; }

binary() { # ARCH
    local cpu target upper
    cpu=$(triple "$1") target=$cpu-unknown-linux-gnu
    upper=$(tr a-z- A-Z_ <<<"$target")
    say "building for $1"
    # Paths of the build system tell nothing to whom reads a backtrace.
    export "CARGO_TARGET_${upper}_RUSTFLAGS=--remap-path-prefix=$PWD=facelatch --remap-path-prefix=$CARGO_HOME/registry/src=crates"
    export "CARGO_TARGET_${upper}_LINKER=$cpu-linux-gnu-facelatch-cc"
    export "CC_${target//-/_}=$cpu-linux-gnu-facelatch-cc"
    export "BINDGEN_EXTRA_CLANG_ARGS_${target//-/_}=--sysroot=/usr/local/lib/facelatch-cross/$1"
    cargo build --release --locked --bin facelatch --target "$target"
    floor "$CARGO_TARGET_DIR/$target/release/facelatch" >"$WORK/floor-$1"
}

# What is the same for every architecture: manual pages, completions, licences, bill of materials.
manual() {
    say "manual pages, completions, licences, bill of materials"
    rm -rf "$WORK/common" && mkdir -p "$WORK/common"
    # For this machine, without optimisation and without devices: only the description of the command line is used.
    CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0 \
        cargo --config 'profile.dev.package."*".opt-level=0' \
        run --quiet --locked --no-default-features --example manual -- "$WORK/common/manual"
    python3 cross/licences.py >"$WORK/common/licences-of-crates.txt"
    local arch
    for arch in "$@"; do
        # It writes beside Cargo.toml whatever it is told.
        cargo cyclonedx --quiet --format json --spec-version 1.5 --all --no-build-deps \
            --target "$(triple "$arch")-unknown-linux-gnu" --override-filename "sbom-of-crates-$arch"
        mv "sbom-of-crates-$arch.json" "$WORK/common/"
    done
}

package() { # ARCH
    local cpu stage=$OUT/stage runtime deb
    cpu=$(triple "$1") runtime=vendor/onnxruntime/$cpu
    say "packing for $1"
    rm -rf "$stage" "$OUT"/facelatch_*_"$1".deb && mkdir -p "$stage"
    cp -r "$WORK/common/manual" "$stage/"
    cp "$runtime/libonnxruntime.so" "$stage/"
    cp "$runtime/LICENSE" "$stage/onnxruntime-licence.txt"
    cp "$runtime/ThirdPartyNotices.txt" "$stage/onnxruntime-third-party-notices.txt"
    cp "$WORK/common/licences-of-crates.txt" "$stage/"
    python3 cross/sbom.py "$WORK/common/sbom-of-crates-$1.json" "$stage/libonnxruntime.so" "$stage/facelatch.cdx.json"
    echo "libonnxruntime.so: $(floor "$stage/libonnxruntime.so")" >"$WORK/floor-runtime-$1"
    # The profile has removed the debug information already.
    cargo deb --quiet --locked --no-build --no-strip --compress-system --target "$cpu-unknown-linux-gnu" \
        --output "$OUT/facelatch_$1.deb"
    deb=$OUT/facelatch_$(dpkg-deb -f "$OUT/facelatch_$1.deb" Version)_$1.deb
    mv "$OUT/facelatch_$1.deb" "$deb"
    rm -rf "$stage"
}

models() { # MODELS
    local stage=$WORK/models
    say "packing the models of $1"
    rm -rf "$stage" "$OUT"/facelatch-models-*.deb
    if ! python3 cross/models.py "$1" "$stage"; then
        [ "${MODELS_MAY_LACK:-}" = yes ] || die "no package of the models"
        say "SKIPPED the package of the models: the pack is not complete"
        return
    fi
    find "$stage" -type d -exec chmod 755 {} + && find "$stage" -type f -exec chmod 644 {} +
    dpkg-deb --root-owner-group -Zxz -b "$stage" "$OUT" >/dev/null
}

# Times in what is generated are those of the changelog: the same source gives the same files.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(dpkg-parsechangelog -l cross/debian/changelog -S Timestamp)}
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
[ "$(dpkg-parsechangelog -l cross/debian/changelog -S Version)" = "$version-1" ] ||
    die "cross/debian/changelog does not begin with $version-1, the version in Cargo.toml"

[ $# -gt 0 ] || die "usage: build.sh amd64|arm64..."
mkdir -p "$OUT" "$WORK"
if [ "${STAGE:-}" = check ]; then
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    export CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_TARGET_DIR=$CARGO_TARGET_DIR/check
    for arch in "$@"; do
        binary "$arch"
        printf '%s: %s\n' "$arch" "$(cat "$WORK/floor-$arch")"
    done
    exit
fi
[ "${STAGE:-}" = manual ] || for arch in "$@"; do binary "$arch"; done
manual "$@"
[ "${STAGE:-}" = manual ] && exit
for arch in "$@"; do package "$arch"; done
[ -z "${MODELS:-}" ] || models "$MODELS"

say "made"
for deb in "$OUT"/*.deb; do
    printf '%-52s %9s, installed %s MB\n' "$deb" "$(megabytes "$deb")" \
        "$(dpkg-deb -f "$deb" Installed-Size | awk '{ printf "%.1f", $1 * 1.024 / 1000 }')"
done
for arch in "$@"; do
    printf '%s: facelatch %s, %s; %s\n' "$arch" \
        "$(megabytes "$CARGO_TARGET_DIR/$(triple "$arch")-unknown-linux-gnu/release/facelatch")" \
        "$(cat "$WORK/floor-$arch")" "$(cat "$WORK/floor-runtime-$arch")"
done
