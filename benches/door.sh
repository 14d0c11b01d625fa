#!/usr/bin/env bash
# Measures capture -> decision -> relay of docs/figures.md: the release program with a simulated door and a replayed
# camera (people of FACES/lfw/people with at least eight pictures, 15 frames a second), read from the event log over HTTP.
#   benches/door.sh [SECONDS]      default 90, once with liveness required and once without
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
SECONDS_EACH=${1:-90}
FACES=$(readlink -f "${FACES:-../shared/faces}")
BIN=${BIN:-target/release/facelatch}
MODELS=$(readlink -f "${MODELS:-var/models}")
export ORT_DISABLE_TELEMETRY=1

[ -d "$FACES/lfw/people" ] || { echo "FAILED: $FACES/lfw/people is not there; FACES=DIR names another place" >&2; exit 1; }
[ -x "$BIN" ] || cargo build --release --locked --bin facelatch
WORK=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null; wait 2>/dev/null; rm -rf "$WORK"' EXIT

# The walk: each of six people for eight different pictures, then nobody for two seconds.
python3 - "$WORK" "$FACES/lfw/people" <<'PYTHON'
import os, struct, sys, zlib
work, people = sys.argv[1:]
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\0" + bytes([120 + y // 4, 120, 120]) * 250 for y in range(250))
header = struct.pack(">IIBBBBB", 250, 250, 8, 2, 0, 0, 0)
with open(os.path.join(work, "nobody.png"), "wb") as out:
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
os.mkdir(os.path.join(work, "walk"))
number, chosen = 0, []
for name in sorted(os.listdir(people)):
    pictures = sorted(os.path.join(people, name, picture) for picture in os.listdir(os.path.join(people, name)))
    if len(pictures) < 13:
        continue
    chosen.append((name, pictures))
    if len(chosen) == 6:
        break
for index, (name, pictures) in enumerate(chosen):
    with open(os.path.join(work, f"enrol-{index}"), "w") as out:
        out.write("\n".join(pictures[:4]))
    for picture in pictures[4:12] + [os.path.join(work, "nobody.png")] * 30:
        number += 1
        os.symlink(os.path.realpath(picture), os.path.join(work, "walk", f"{number:04d}{os.path.splitext(picture)[1]}"))
PYTHON

run() { # LIVENESS
  local port socket
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  rm -rf "$WORK/store"
  cat >"$WORK/facelatch.toml" <<TOML
[http]
listen = "127.0.0.1:$port"
tls = false
[store]
dir = "$WORK/store"
[models]
dir = "$MODELS"
[liveness]
required = $1
[door]
backend = "simulated"
unlock_s = 1
fail_alarm_n = 0
[[camera]]
name = "front"
source = "replay:$WORK/walk"
fps = 15
cooldown_s = 1
[log]
format = "text"
TOML
  "$BIN" run --config "$WORK/facelatch.toml" 2>"$WORK/log" & daemon=$!
  local tries=100
  until curl -sf --noproxy '*' "http://127.0.0.1:$port/ready" >/dev/null; do
    tries=$((tries - 1)); [ $tries -gt 0 ] || { tail -5 "$WORK/log" >&2; exit 1; }
    sleep 0.1
  done
  "$BIN" collection create --config "$WORK/facelatch.toml" staff >/dev/null
  local index
  for index in 0 1 2 3 4 5; do
    [ -e "$WORK/enrol-$index" ] || continue
    mkdir -p "$WORK/people/P$index"
    while read -r picture || [ -n "$picture" ]; do cp "$picture" "$WORK/people/P$index/"; done <"$WORK/enrol-$index"
  done
  "$BIN" person enrol --config "$WORK/facelatch.toml" --collection staff --dir "$WORK/people" >/dev/null 2>"$WORK/enrolment" || tail -n 3 "$WORK/enrolment"
  sleep "$SECONDS_EACH"
  key=$("$BIN" key add --config "$WORK/facelatch.toml" --name bench --scope events)
  echo "== liveness.required = $1, $SECONDS_EACH s"
  curl -s --noproxy '*' -H "x-api-key: $key" "http://127.0.0.1:$port/events?limit=1000" | python3 -c '
import collections, datetime, json, sys
def time(text): return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
events = json.load(sys.stdin)["events"]
kinds = collections.Counter((event["event_type"], event["reason"]) for event in events)
print("events:", ", ".join(kind + ("/" + reason if reason else "") + " " + str(count) for (kind, reason), count in sorted(kinds.items(), key=str)))
def show(name, times):
    times = sorted(times)
    if times:
        rank = lambda p: times[max(0, -(-len(times) * p // 100) - 1)]
        print(f"{name}: n {len(times)}, p50 {rank(50):.0f} ms, p95 {rank(95):.0f} ms, p99 {rank(99):.0f} ms, max {times[-1]:.0f} ms")
show("capture -> decision", [event["latency_ms"] for event in events if event["latency_ms"] is not None])
show("capture -> relay", [(time(event["t_relay"]) - time(event["t_capture"])).total_seconds() * 1000 for event in events if event["t_relay"] and event["t_capture"]])
'
  kill "$daemon"; wait "$daemon" 2>/dev/null || true
  daemon=
}

run true
run false
