#!/usr/bin/env bash
# Measures the liveness figures of docs/figures.md again; `./dev figures` calls it. Needs the pictures of ../shared/faces.
# Reports and plots go to target/figures/liveness-*. With STATE_SETS=DIR (made by models/train/face_state_test_sets.py) also
# closed eyes and covered faces of people that the face state network was not trained on; with HELD_OUT=DIR (made by
# models/train/held_out.py) also the embedded pack beside the standard one on people that it was not trained on.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
FACES=$(readlink -f "${FACES:-../shared/faces}")
OUT=$PWD/target/figures
BIN=target/release/facelatch
SETS=$OUT/liveness-sets
export FACELATCH_MODELS__DIR=${FACELATCH_MODELS__DIR:-var/models}

[ -d "$FACES/spoof" ] || { echo "FAILED: $FACES/spoof is not there; FACES=DIR names another place" >&2; exit 1; }
cargo build --release --locked --bin facelatch --example synthetic_attacks
"$BIN" models install --pack standard
rm -rf "$SETS"

# Links to the pictures of a folder, numbered: two folders may hold the same file name.
gather() { # FROM TO
  mkdir -p "$2"
  local number=0
  while IFS= read -r picture; do
    number=$((number + 1))
    ln -s "$picture" "$2/$(printf '%05d' "$number").${picture##*.}"
  done < <(find -L "$1" -type f \( -iname '*.jpg' -o -iname '*.jpeg' -o -iname '*.png' \) | sort)
}

evaluate() { # NAME DATA RULES [PACK]
  echo "== liveness: $1, rules $3, pack ${4:-standard}"
  "$BIN" eval liveness --data "$2" --out "$OUT/liveness-$1" --rules "$3" --pack "${4:-standard}"
}

evaluate samples "$FACES/spoof" posted
evaluate samples-camera "$FACES/spoof" camera
gather "$FACES/photos" "$SETS/photos/bona-fide"
evaluate photos "$SETS/photos" posted
gather "$FACES/lfw/people" "$SETS/lfw/bona-fide"
evaluate lfw "$SETS/lfw" any-size
gather "$FACES/occlusion/without_mask" "$SETS/occlusion/bona-fide"
gather "$FACES/occlusion/with_mask" "$SETS/occlusion/refused/FACE_IS_OCCLUDED/mask"
evaluate occlusion "$SETS/occlusion" any-size
if [ -n "${STATE_SETS:-}" ]; then
  mkdir -p "$SETS/state/bona-fide"
  ln -s "$(readlink -f "$STATE_SETS")/refused" "$SETS/state/refused"
  ln -s "$(readlink -f "$STATE_SETS")/bona-fide" "$SETS/state/bona-fide/plain"
  for kind in "$STATE_SETS"/bona-fide-hard/*; do ln -s "$(readlink -f "$kind")" "$SETS/state/bona-fide/"; done
  evaluate state "$SETS/state" any-size
fi
if [ -n "${HELD_OUT:-}" ]; then
  gather "$HELD_OUT/people" "$SETS/held-out/bona-fide"
  target/release/examples/synthetic_attacks --from "$SETS/held-out/bona-fide" --out "$SETS/held-out-attacks" --count 40 --seed 5
  for pack in builtin standard; do
    evaluate "held-out-$pack" "$SETS/held-out" any-size "$pack"
    evaluate "held-out-attacks-$pack" "$SETS/held-out-attacks" camera "$pack"
  done
  evaluate samples-builtin "$FACES/spoof" posted builtin
  evaluate samples-camera-builtin "$FACES/spoof" camera builtin
fi
# About ten minutes on two cores.
target/release/examples/synthetic_attacks --from "$FACES/photos" --out "$SETS/attacks" --count 40 --seed 5
evaluate attacks "$SETS/attacks" camera
