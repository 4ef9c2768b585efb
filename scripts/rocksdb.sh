#!/usr/bin/env bash
# Builds the RocksDB archive once per machine into a cache and links .cache/rocksdb to it. Does nothing when it is there.
#
# The version is the one that Cargo.lock pins for librocksdb-sys, so the C++ archive and the Rust bindings never part. The archive is
# compiled with optimisation whatever profile the workspace uses; it takes about ten minutes on two cores, once.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(awk '/^name = "librocksdb-sys"/{getline; gsub(/version = |"/, ""); print; exit}' Cargo.lock)
rocksdb=$(awk '/^name = "rocksdb"/{getline; gsub(/version = |"/, ""); print; exit}' Cargo.lock)
[ -n "$version" ] || { echo "rocksdb.sh: Cargo.lock names no librocksdb-sys; run it from the workspace" >&2; exit 1; }
cache="${HERMOD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hermod}/rocksdb-$version-$(uname -m)"

link() {
  mkdir -p .cache
  ln -sfn "$cache" .cache/rocksdb
}

if [ -s "$cache/lib/librocksdb.a" ]; then
  link
  exit 0
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/hermod-rocksdb.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/src" "$cache/lib"
cat > "$scratch/Cargo.toml" <<TOML
[package]
name = "rocksdb-archive"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
rocksdb = { version = "=$rocksdb", default-features = false, features = ["bindgen-runtime", "lz4"] }
librocksdb-sys = { version = "=$version", default-features = false }

[profile.release]
debug = false
TOML
echo 'fn main() {}' > "$scratch/src/main.rs"

echo "Building RocksDB ($version) once into $cache; about ten minutes on two cores." >&2
log="$cache/build.log"
# Outside the workspace, so that .cargo/config.toml, which points at the archive being made, does not apply.
(cd "$scratch" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$scratch/target" cargo build --release) > "$log" 2>&1 &
build=$!
while kill -0 "$build" 2>/dev/null; do
  objects=$({ find "$scratch/target" -path '*librocksdb-sys*' -name '*.o' 2>/dev/null || true; } | wc -l)
  printf '\r  %s of about 345 files' "$objects" >&2
  sleep 5 || true
done
printf '\n' >&2
if ! wait "$build"; then
  echo "rocksdb.sh: the build failed; the end of $log:" >&2
  tail -n 20 "$log" >&2
  exit 1
fi
archive=$(find "$scratch/target/release/build" -name librocksdb.a | head -n 1)
cp "$archive" "$cache/lib/librocksdb.a.new"
mv "$cache/lib/librocksdb.a.new" "$cache/lib/librocksdb.a"
link
echo "RocksDB is ready." >&2
