#!/usr/bin/env bash
# Measures the figures of docs/figures.md again; `./dev figures` calls it. Needs the pictures of ../shared/faces.
# Reports, plots and JSON go to target/figures.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
FACES=${FACES:-../shared/faces}
OUT=target/figures
BIN=target/release/facelatch
export FACELATCH_MODELS__DIR=var/models FACELATCH_STORE__DIR=$OUT/store

[ -d "$FACES/lfw/people" ] || { echo "FAILED: $FACES/lfw/people is not there; FACES=DIR names another place" >&2; exit 1; }
cargo build --release --locked
mkdir -p "$OUT"
"$BIN" models install --pack standard
"$BIN" models install --pack noncommercial --accept-licence || echo "noncommercial is not installed; its row stays out"

recognition() { # NAME PACK EMBEDDING
  echo "== recognition: $1"
  "$BIN" eval recognition --data "$FACES/lfw" --out "$OUT/recognition-$1" --pack "$2" ${3:+--embedding "$3"}
}
recognition mobilefacenet-int8 standard ""
recognition mobilefacenet standard mobilefacenet
recognition intel-0095 standard intel-0095
recognition edgeface-xs noncommercial "" || echo "edgeface-xs: not measured"
recognition builtin builtin ""

benches/identity.sh

# Speed: any picture with one face does.
PICTURE=$(find -L "$FACES/lfw/people" -name '*_0001.jpg' | sort | sed -n 1p)
for pack in standard builtin; do
  echo "== bench: $pack, 10,000 people, one worker"
  FACELATCH_MODELS__PACK=$pack FACELATCH_MODELS__WORKERS=1 "$BIN" bench --picture "$PICTURE" --persons 10000 --json > "$OUT/bench-$pack.json"
done
FACELATCH_MODELS__WORKERS=2 "$BIN" bench --picture "$PICTURE" --persons 10000 --json > "$OUT/bench-standard-2-workers.json"
benches/liveness.sh
echo "== gallery kernels"
cargo bench --locked --bench gallery | tee "$OUT/gallery.txt"
echo "== done: $OUT"
