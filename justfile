# What contributors and CI run. `just` lists it.

set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list

# Everything that must be green before a commit lands, except the tests
check: fmt clippy docs deny scripts

# Formatting
fmt:
    cargo fmt --all --check

# Lints, as errors
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Documentation without warnings
docs:
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --locked --document-private-items

# Licences, sources and duplicate versions of dependencies (advisories need the network: `cargo deny check advisories`)
deny:
    cargo deny --locked check bans licenses sources

# Shell scripts parse
scripts:
    bash -n .ci/run examples-wasm/build.sh fuzz/run

# The tests
test:
    cargo test --workspace --locked

# Each fuzz target for some seconds; needs cargo-fuzz
fuzz SECONDS="60":
    fuzz/run {{SECONDS}}

# The promises, each against its peer in the same run; slow, needs wrk and, for the peers, wasmtime and docker.io
bench *ARGS:
    cargo build --release --locked
    benches/run {{ARGS}}

# Rebuild the example components
examples:
    examples-wasm/build.sh
