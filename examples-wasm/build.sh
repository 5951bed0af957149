#!/usr/bin/env bash
# Builds the example components into prebuilt/ (or the folder given as $1).
#
# With rustup: `rustup target add wasm32-wasip1 wasm32-wasip2` and nothing else. Where no such target can be installed,
# Debian's compiler builds the standard library itself: `apt-get install rustc-web cargo-web rust-web-src wasi-libc lld`.
set -euo pipefail
cd "$(dirname "$0")"
out=$(mkdir -p "${1:-prebuilt}" && cd "${1:-prebuilt}" && pwd)
components=(hello-http guestbook guestbook-filter guestbook-store worker misbehave-http)
services=(hello-http-p3 misbehave-http-p3) # libraries of WASI 0.3, whose files are named with underscores
modules=(misbehave) # stays a preview-1 core module: the node adapts it when it pulls it
target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target

packages() { printf -- '-p %s ' "$@"; }

if rustup target list --installed 2>/dev/null | grep -q '^wasm32-wasip2$'; then
  # shellcheck disable=SC2046
  cargo build --locked --release --target wasm32-wasip2 $(packages "${components[@]}" "${services[@]}")
  # shellcheck disable=SC2046
  cargo build --locked --release --target wasm32-wasip1 $(packages "${modules[@]}")
  for name in "${components[@]}"; do cp "$target/wasm32-wasip2/release/$name.wasm" "$out/"; done
  for name in "${services[@]}"; do cp "$target/wasm32-wasip2/release/${name//-/_}.wasm" "$out/$name.wasm"; done
else
  libc=/usr/lib/wasm32-wasi
  [ -x /usr/bin/rustc ] && [ -e "$libc/crt1-command.o" ] || {
    echo "no Wasm target: run 'rustup target add wasm32-wasip1 wasm32-wasip2', or on Debian" \
      "'apt-get install rustc-web cargo-web rust-web-src wasi-libc lld'" >&2
    exit 1
  }
  link="-Clinker=wasm-ld -Clink-self-contained=no -Clink-arg=-L$libc"
  debian() { # kind-of-start-file, further flags, packages
    local start=$1 flags=$2; shift 2
    # shellcheck disable=SC2046
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="$link -Clink-arg=$libc/$start $flags" CARGO_TARGET_DIR="$target/${start%.o}" \
      /usr/bin/cargo build --locked --release -Zbuild-std=std,panic_abort --target wasm32-wasip1 $(packages "$@")
  }
  debian crt1-command.o "" "${components[@]}" "${modules[@]}"
  debian crt1-reactor.o "-Clink-arg=--no-entry" "${services[@]}"
  command=$target/crt1-command/wasm32-wasip1/release reactor=$target/crt1-reactor/wasm32-wasip1/release
  componentize() {
    (cd .. && env -u CARGO_TARGET_DIR cargo run --locked --quiet -p wherry-runtime --example componentize -- "$1" "$2")
  }
  for name in "${components[@]}"; do componentize "$command/$name.wasm" "$out/$name.wasm"; done
  for name in "${services[@]}"; do componentize "$reactor/${name//-/_}.wasm" "$out/$name.wasm"; done
  target=$target/crt1-command
fi
for name in "${modules[@]}"; do cp "$target/wasm32-wasip1/release/$name.wasm" "$out/"; done
ls -l "$out"/*.wasm
