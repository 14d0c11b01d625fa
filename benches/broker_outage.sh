#!/usr/bin/env bash
# Measures the figure of docs/figures.md on a broker that is away: ten minutes with 1,000 events, once with a client that
# is stopped and started in the middle, once with one that is killed. Needs mosquitto and mosquitto-clients.
# SECONDS_AWAY=20 makes it short.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
cargo build --release --locked --example broker_outage
for end in stop kill; do
  target/release/examples/broker_outage "${SECONDS_AWAY:-600}" "${EVENTS:-1000}" "$end"
done
