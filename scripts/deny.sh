#!/usr/bin/env bash
# What may be linked, and from where: cargo-deny with deny.toml. Advisories are checked where their database can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.cache/cargo-deny/bin:$PATH"
if ! command -v cargo-deny >/dev/null; then
  echo "cargo-deny is not installed; licences, bans and sources are not checked (deny.toml)"
  exit 0
fi
cargo deny --offline --log-level warn check bans licenses sources
if timeout 60 cargo deny fetch db > .cache/advisories.log 2>&1; then
  cargo deny --offline --log-level warn check advisories
else
  echo "the database of advisories can't be reached (.cache/advisories.log); advisories are not checked"
fi
