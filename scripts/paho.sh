#!/usr/bin/env bash
# Runs the interoperability suites of Eclipse Paho (github.com/eclipse/paho.mqtt.testing, which is not part of this tree) against a
# node with conf/paho.yml. PAHO_TESTING names the folder of that repository; TESTS, when set, names single tests.
set -euo pipefail
cd "$(dirname "$0")/.."
suites="${PAHO_TESTING:?set PAHO_TESTING to a checkout of paho.mqtt.testing}/interoperability"
hermod="${HERMOD:-target/release/hermod}"
[ -f "$suites/client_test5.py" ] || { echo "paho.sh: no interoperability/client_test5.py in $PAHO_TESTING" >&2; exit 1; }

read -r mqtt ws http < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in sockets))')
scratch=$(mktemp -d "${TMPDIR:-/tmp}/hermod-paho.XXXXXX")
"$hermod" start --config conf/paho.yml \
  -D dataDir="$scratch/data" -D apiServerConfig.httpPort="$http" \
  -D mqttServiceConfig.server.tcpListener.port="$mqtt" -D mqttServiceConfig.server.wsListener.port="$ws" \
  > "$scratch/hermod.log" 2>&1 &
node=$!
trap 'kill "$node" 2>/dev/null; wait "$node" 2>/dev/null || true; rm -rf "$scratch"' EXIT
for _ in $(seq 200); do
  if python3 -c "import socket; socket.create_connection(('127.0.0.1', $mqtt), 1)" 2>/dev/null; then break; fi
  kill -0 "$node" 2>/dev/null || { cat "$scratch/hermod.log" >&2; exit 1; }
  sleep 0.1
done
failed=0
for suite in client_test client_test5; do
  echo "== $suite"
  python3 scripts/paho.py "$suites" "$suite" "$mqtt" ${TESTS:-} || failed=1
done
if [ "$failed" != 0 ]; then
  echo "--- the log of the node ends:"
  tail -n 30 "$scratch/hermod.log"
fi
exit "$failed"
