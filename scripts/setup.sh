#!/usr/bin/env bash
# Makes the real clients available that the tests drive: mosquitto_pub and mosquitto_sub, paho-mqtt, mqtt.js. Quick when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache

apt() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    return 1
  fi
  { apt-get update && apt-get install -y --no-install-recommends "$@"; } > .cache/apt.log 2>&1
}

if ! command -v mosquitto_pub >/dev/null; then
  echo "Installing mosquitto_pub and mosquitto_sub." >&2
  apt mosquitto-clients || echo "setup.sh: no mosquitto_pub: its tests are skipped (Debian: apt install mosquitto-clients)" >&2
fi

paho=2.1.0
if [ "$(cat tests/.venv/paho 2>/dev/null)" != "$paho" ]; then
  echo "Installing paho-mqtt $paho into tests/.venv." >&2
  rm -rf tests/.venv
  python3 -m venv tests/.venv 2>.cache/venv.log || { apt python3-venv && rm -rf tests/.venv && python3 -m venv tests/.venv; }
  tests/.venv/bin/python -m pip install --quiet --disable-pip-version-check "paho-mqtt==$paho"
  echo "$paho" > tests/.venv/paho
fi

if ! command -v npm >/dev/null; then
  echo "setup.sh: no npm: the tests with mqtt.js are skipped (Debian: apt install npm)" >&2
elif ! cmp -s tests/package.json tests/node_modules/.package.json; then
  echo "Installing mqtt.js into tests/node_modules." >&2
  (cd tests && npm install --silent --no-package-lock --no-audit --no-fund)
  cp tests/package.json tests/node_modules/.package.json
fi
