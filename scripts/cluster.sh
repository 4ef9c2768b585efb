#!/usr/bin/env bash
# Starts the three nodes of conf/cluster on this machine, with their data under data/cluster, waits until they are ready, shows their
# state, and stops them together: on Ctrl-C, or when one of them ends. Arguments go to each `hermod start`.
set -euo pipefail
cd "$(dirname "$0")/.."
hermod="${HERMOD:-target/release/hermod}"
patience="${PATIENCE:-60}"
data="${DATA:-data/cluster}"
pids=()

stop() {
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  echo "All nodes are stopped."
}
trap 'stop; exit 130' INT TERM
trap 'stop' EXIT

# The status code of GET $2 at port $1.
status_of() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
    read -r -t 2 _ code _ <&3 && echo "$code"
  ) 2>/dev/null || true
}

for node in 1 2 3; do
  mkdir -p "$data/node$node"
  # A group of its own: Ctrl-C goes to this script, which stops them in order.
  setsid "$hermod" start --config "conf/cluster/node$node.yml" -D "dataDir=$data/node$node" "$@" > "$data/node$node.log" 2>&1 &
  pids+=($!)
done

deadline=$((SECONDS + patience))
for node in 1 2 3; do
  until [ "$(status_of $((8090 + node)) /ready)" = 200 ]; do
    if ! kill -0 "${pids[node - 1]}" 2>/dev/null; then
      echo "Node $node has ended; its log:" >&2
      tail -n 20 "$data/node$node.log" >&2
      exit 1
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "Node $node is not ready after $patience s; its log:" >&2
      tail -n 20 "$data/node$node.log" >&2
      exit 1
    fi
    sleep 0.1
  done
done

# Each is ready; together they are when every range has its voters.
until "$hermod" status > "$data/status" 2>&1 || [ "$SECONDS" -ge "$deadline" ]; do sleep 0.2; done
cat "$data/status"
for node in 1 2 3; do
  echo "node $node: MQTT at 127.0.0.1:$((1882 + node)), HTTP at http://127.0.0.1:$((8090 + node)), log in $data/node$node.log"
done
echo "Ctrl-C stops them."
# Ends when the first of them does.
wait -n "${pids[@]}"
echo "A node has ended by itself." >&2
exit 1
