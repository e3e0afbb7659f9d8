#!/bin/sh
# Builds the module with rustup's wasm32-unknown-unknown target, or else with Debian's toolchain, which builds the
# standard library itself (a minute, once). `build.sh --check` only says whether one of them is there.
set -eu

target=wasm32-unknown-unknown
build_std=
libdir=$(rustc --print target-libdir --target "$target" 2>/dev/null || true)
debian=$(/usr/bin/rustc --print sysroot 2>/dev/null || true)
if command -v cargo >/dev/null && [ -n "$libdir" ] && [ -d "$libdir" ]; then
    cargo=cargo
elif [ -x /usr/bin/cargo ] && [ -n "$debian" ] && [ -d "$debian/lib/rustlib/src" ] && command -v wasm-ld >/dev/null; then
    cargo=/usr/bin/cargo
    build_std="-Zbuild-std=std,panic_abort"
    # -Z needs this switch on a stable compiler. Debian's compiler brings no linker for the target.
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld
    export RUSTC RUSTC_BOOTSTRAP CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
else
    exit 1
fi
[ "${1-}" != --check ] || exit 0
# shellcheck disable=SC2086 # nothing, or one word
exec "$cargo" build --release --target "$target" $build_std
