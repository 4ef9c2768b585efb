#!/usr/bin/env bash
# Makes libclang, which the RocksDB bindings need to build, available, and writes what cargo has to know of it to .cache/env.
# Does nothing when it is there. As root it comes from apt, otherwise from a Python wheel into .cache.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache

installed() {
  # Not libclang-cpp, which compilers bring along and which is of no use here.
  [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -Eq 'libclang(-[0-9.]+)?\.so' ||
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*' >/dev/null
}

if installed; then
  : > .cache/env
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing libclang." >&2
  if { apt-get update && apt-get install -y --no-install-recommends libclang-dev; } > .cache/apt.log 2>&1 && installed; then
    : > .cache/env
    exit 0
  fi
  echo "apt-get failed (.cache/apt.log); trying a Python wheel." >&2
fi
if ! compgen -G '.cache/libclang/clang/native/libclang*' >/dev/null; then
  echo "Installing libclang into .cache/libclang." >&2
  python3 -m pip install --quiet --target .cache/libclang libclang || {
    echo "libclang.sh: install libclang (Debian: apt install libclang-dev) and try again" >&2
    exit 1
  }
fi
# The wheel has no headers of the compiler; gcc's serve.
cat > .cache/env <<ENV
export LIBCLANG_PATH="$PWD/.cache/libclang/clang/native"
export BINDGEN_EXTRA_CLANG_ARGS="-I$(gcc -print-file-name=include)"
ENV
