#!/usr/bin/env bash
# Measures what the daemon writes: "Bytes written" of docs/figures.md. Root, mosquitto, e2fsprogs and the pictures of FACES.
#   benches/writes.sh [MINUTES]      default 10
# Five daemons run side by side, each with its store on an ext4 of its own (a file behind a loop device), mounted as
# Raspberry Pi OS mounts its card (noatime): a camera that sees nobody, and one at which somebody appears every four seconds,
# in turn enrolled and not, each with a broker and with one that is away, the latter also without one. Counted are
#   handed over   write_bytes of /proc/PID/io: what the daemon gave to the page cache
#   to the medium sectors written, of /sys/block/loopN/stat: with the file system's journal and tables, as a card sees it
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
MINUTES=${1:-10}
FACES=$(readlink -m "${FACES:-../shared/faces}")
BIN=$(readlink -m "${BIN:-target/release/facelatch}")
MODELS=$(readlink -m "${MODELS:-var/models}")
RUNTIME=$(readlink -m "vendor/onnxruntime/$(uname -m)/libonnxruntime.so")
export ORT_DISABLE_TELEMETRY=1
# From the start until the counting begins: the first start makes keys, a certificate and the first admin key.
SETTLE_S=20
# What stands for the endurance of a card, which makers of cheap ones do not state: 32 GB, each cell written 500 times, and ten
# bytes written inside for one that comes in, because small writes move whole blocks.
CARD_BYTES=32000000000 CARD_CYCLES=500 CARD_AMPLIFICATION=10

fail() { echo "FAILED: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root, for file systems behind loop devices"
[ -d "$FACES/lfw/people" ] || fail "$FACES/lfw/people is not there; FACES=DIR names another place"
for program in mosquitto mkfs.ext4 losetup curl; do command -v $program >/dev/null || fail "$program is not installed"; done
[ -x "$BIN" ] || { cargo build --release --locked --bin facelatch; BIN=$(readlink -f target/release/facelatch); }

WORK=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for mounted in "$WORK"/*/medium; do umount "$mounted" 2>/dev/null || true; done
  rm -rf "$WORK"
}
trap cleanup EXIT

python3 - "$WORK" "$FACES/lfw/people" <<'PYTHON'
import os, struct, sys, zlib
work, people = sys.argv[1:]
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\0" + bytes([120 + y // 4, 120, 120]) * 250 for y in range(250))
header = struct.pack(">IIBBBBB", 250, 250, 8, 2, 0, 0, 0)
nobody = os.path.join(work, "nobody.png")
with open(nobody, "wb") as out:
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
for folder in ("empty", "visits"):
    os.mkdir(os.path.join(work, folder))
os.symlink(nobody, os.path.join(work, "empty", "0.png"))
chosen = []
for name in sorted(os.listdir(people)):
    pictures = sorted(os.path.join(people, name, picture) for picture in os.listdir(os.path.join(people, name)))
    if len(pictures) >= 12:
        chosen.append(pictures)
known, stranger = chosen[0], chosen[1]
with open(os.path.join(work, "enrol"), "w") as out:
    out.write("\n".join(known[:4]) + "\n")
number = 0
for pictures in (known[4:12], stranger[4:12]):
    for picture in pictures + [nobody] * 8:
        number += 1
        os.symlink(os.path.realpath(picture), os.path.join(work, "visits", f"{number:03d}{os.path.splitext(picture)[1]}"))
PYTHON

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start() { # NAME FOLDER FPS BROKER(up|away|none)
  local home=$WORK/$1 port broker tries=300
  mkdir -p "$home/medium"
  truncate -s 256M "$home/disk.img"
  mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$home/disk.img"
  mount -o loop,noatime "$home/disk.img" "$home/medium"
  findmnt -n -o SOURCE "$home/medium" | sed 's#/dev/##' > "$home/device"
  port=$(free_port); broker=$(free_port)
  if [ "$4" = up ]; then
    printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence false\n' "$broker" > "$home/mosquitto.conf"
    mosquitto -c "$home/mosquitto.conf" > "$home/mosquitto.log" 2>&1 & pids+=($!)
  fi
  cat > "$home/facelatch.toml" <<TOML
[http]
listen = "127.0.0.1:$port"
[store]
dir = "$home/medium/store"
[models]
dir = "$MODELS"
runtime = "$RUNTIME"
[liveness]
required = false
[mqtt]
url = "$([ "$4" = none ] || echo "mqtt://127.0.0.1:$broker")"
[door]
backend = "simulated"
unlock_s = 1
fail_alarm_n = 0
[[camera]]
name = "front"
source = "replay:$WORK/$2"
fps = $3
cooldown_s = 1
[log]
format = "json"
TOML
  "$BIN" run --config "$home/facelatch.toml" 2> "$home/log" & pids+=($!); echo $! > "$home/pid"
  until curl -skf --noproxy '*' "https://127.0.0.1:$port/ready" > /dev/null; do
    tries=$((tries - 1)); [ $tries -gt 0 ] || { tail -5 "$home/log" >&2; fail "$1 does not become ready"; }
    sleep 0.1
  done
  if [ "$2" = visits ]; then
    "$BIN" collection create --config "$home/facelatch.toml" staff > /dev/null
    local picture number=0
    while read -r picture; do
      number=$((number + 1)); mkdir -p "$home/people/known"; cp "$picture" "$home/people/known/$number.jpg"
    done < "$WORK/enrol"
    "$BIN" person enrol --config "$home/facelatch.toml" --collection staff --dir "$home/people" > /dev/null
  fi
}

count() { # NAME FILE
  local home=$WORK/$1
  sync -f "$home/medium"
  {
    awk '/^write_bytes/ { print $2 }' "/proc/$(cat "$home/pid")/io"
    awk '{ print $7 * 512 }' "/sys/block/$(cat "$home/device")/stat"
    wc -l < "$home/log"
    grep -c '"message":"event"' "$home/log" || true
    date +%s
  } | paste -sd' ' > "$home/$2"
}

names=(idle-broker-up idle-broker-away visits-broker-up visits-broker-away visits-no-broker)
start idle-broker-up empty 15 up
start idle-broker-away empty 15 away
start visits-broker-up visits 4 up
start visits-broker-away visits 4 away
start visits-no-broker visits 4 none
sleep $SETTLE_S
for name in "${names[@]}"; do count "$name" before; done
sleep $((MINUTES * 60))
for name in "${names[@]}"; do count "$name" after; done

for name in "${names[@]}"; do
  read -r handed0 medium0 lines0 events0 at0 < "$WORK/$name/before"
  read -r handed1 medium1 lines1 events1 at1 < "$WORK/$name/after"
  awk -v name="$name" -v handed=$((handed1 - handed0)) -v medium=$((medium1 - medium0)) -v lines=$((lines1 - lines0)) \
      -v events=$((events1 - events0)) -v seconds=$((at1 - at0)) -v card="$CARD_BYTES" -v cycles="$CARD_CYCLES" -v inside="$CARD_AMPLIFICATION" '
    BEGIN {
      hours = seconds / 3600
      printf "%-20s %4d s  handed over %9d B  to the medium %9d B  log lines %4d  events %3d\n", name, seconds, handed, medium, lines, events
      if (events) printf "%-20s per event: handed over %d B, to the medium %d B\n", "", handed / events, medium / events
      else {
        printf "%-20s per hour: handed over %d B, to the medium %d B, %.1f log lines\n", "", handed / hours, medium / hours, lines / hours
        if (medium) printf "%-20s %.0f years, if a card of %d GB bears %d rewritings and writes %d bytes for one\n", "", card * cycles / inside / (medium / hours) / 8766, card / 1e9, cycles, inside
      }
    }'
done
