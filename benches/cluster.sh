#!/usr/bin/env bash
# Three nodes against one, by the load tool: latency, processor time, memory, and the messages between nodes.
#
#   benches/cluster.sh [SATSUMA]        a release build; by default target/release/satsuma
#   SIZE=small benches/cluster.sh       a tenth of it, to try the script
#   SERVERS=0 TOOL=1                    the cores of nodes and NATS, and of the tool
#   NATS_SERVER=…                       the program, by default that of the path
#
# All on this machine, so that the three nodes and NATS share the cores that the one node has alone. The reports go to
# standard output. Idle connections need a limit on open files of 65,536 (ulimit -Hn).
set -euo pipefail
cd "$(dirname "$0")/.."

satsuma=$(realpath "${1:-target/release/satsuma}")
case ${SIZE:-whole} in
  whole) rooms=500 large=1000 idle=3000 time=${TIME:-20s} ;;
  small) rooms=50 large=100 idle=300 time=${TIME:-5s} ;;
  *) echo "SIZE is whole or small" >&2; exit 2 ;;
esac
ulimit -n 65536 || echo "the limit on open files stays at $(ulimit -n): there may be too few for idle connections" >&2

dir=$(mktemp -d)
pids=()
stop() {
  for pid in "${pids[@]}"; do
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  pids=()
}
trap 'stop; rm -rf "$dir"' EXIT

export SATSUMA_LIMITS__EXEMPT_NETWORKS=127.0.0.1 SATSUMA_LIMITS__CONNECTIONS=60000 SATSUMA_LOG__FILTER=warn

# Starts node number $1, in the folder $2.
node() {
  SATSUMA_ADMIN__LISTEN=127.0.0.1:2170$1 SATSUMA_SFU__UDP_LISTEN=127.0.0.1:2160$1 \
    taskset -c "${SERVERS:-0}" "$satsuma" --data-dir "$2" --listen "127.0.0.1:2180$1" >"$2.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 300); do
    curl -fso /dev/null "http://127.0.0.1:2180$1/readyz" && return
    sleep 0.1
  done
  cat "$2.log" >&2
  exit 1
}

# Runs the tool with these options and those of the command.
load() {
  taskset -c "${TOOL:-1}" "$satsuma" load --for "$time" --join-rate 1000 "$@" 2>/dev/null || echo "the tool ended with $?"
}

# Measures the three loads; all options are those of where the servers are.
measure() {
  load --rooms "$rooms" --users 6 --rate 1 "$@"
  load --users "$large" --rate 1 --deflate "$@"
  load --rooms "$idle" --users 10 --rate 0 "$@"
}

echo "== one node, no NATS"
node 1 "$dir/single"
measure --url http://127.0.0.1:21801 --pid "${pids[0]}"
stop

export SATSUMA_CLUSTER__NATS=nats://127.0.0.1:21422
SATSUMA_CLUSTER__SECRET=$(head -c 32 /dev/urandom | base64)
export SATSUMA_CLUSTER__SECRET
cat >"$dir/nats.conf" <<END
listen: "127.0.0.1:21422"
http: "127.0.0.1:21822"
max_payload: 8MB
jetstream { store_dir: "$dir/nats" }
END
taskset -c "${SERVERS:-0}" "${NATS_SERVER:-nats-server}" -c "$dir/nats.conf" >"$dir/nats.log" 2>&1 &
pids+=($!)
nats=$!
for _ in $(seq 100); do
  curl -fso /dev/null http://127.0.0.1:21822/varz && break
  sleep 0.1
done
for number in 1 2 3; do
  node "$number" "$dir/node-$number"
done
echo "== one of three nodes, NATS $("${NATS_SERVER:-nats-server}" --version)"
measure --url http://127.0.0.1:21801 --pid "${pids[1]}" --nats http://127.0.0.1:21822
echo "== three nodes, members of every room on all"
measure --url http://127.0.0.1:21801 --url http://127.0.0.1:21802 --url http://127.0.0.1:21803 \
  --pid "${pids[1]}" --pid "${pids[2]}" --pid "${pids[3]}" --nats http://127.0.0.1:21822
ps -o rss=,cputime= -p "$nats" | sed 's/^/nats-server, resident kB and processor time: /'
