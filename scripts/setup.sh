#!/usr/bin/env bash
# Makes available what the tests need: the real clients that they drive (mosquitto_pub and mosquitto_sub, paho-mqtt, mqtt.js) and
# cargo-deny, which is built once per machine into a cache. Quick when they are there.
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

deny=0.20.2
cache="${HERMOD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hermod}/cargo-deny-$deny"
if [ ! -x "$cache/bin/cargo-deny" ]; then
  echo "Building cargo-deny $deny, once: some minutes." >&2
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/hermod-deny.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  cargo install cargo-deny --version "=$deny" --locked --quiet --root "$cache" --target-dir "$scratch" > .cache/deny.log 2>&1 ||
    echo "setup.sh: no cargo-deny (.cache/deny.log): licences, bans and sources are not checked" >&2
fi
ln -sfn "$cache" .cache/cargo-deny
