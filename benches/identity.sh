#!/usr/bin/env bash
# Measures the identity decision of docs/figures.md again: ten minutes on 2 cores, most of it for the frames of the visits.
# The templates that it makes on the way are biometric data and are deleted at the end, unless FRAMES names a folder to keep them in.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
FACES=${FACES:-../shared/faces}
OUT=target/figures
BIN=${BIN:-target/release/facelatch}
export FACELATCH_MODELS__DIR=${FACELATCH_MODELS__DIR:-var/models} FACELATCH_STORE__DIR=$OUT/store

if [ -z "${FRAMES:-}" ]; then
  FRAMES=$(mktemp -d)
  trap 'rm -rf "$FRAMES"' EXIT
fi
echo "== identity: mobilefacenet-int8"
"$BIN" eval identity --data "$FACES/lfw" --scratch "$FRAMES" --out "$OUT/identity" --pack standard
