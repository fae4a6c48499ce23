# shellcheck shell=bash
# What every shell script here starts with. Sourced: it goes to the repository's root and reads the pinned versions.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# shellcheck source=scripts/versions
. scripts/versions

# Crates' programs that we install ourselves stay in the repository's own directory and win over nothing: what the
# machine already has, at the pinned version or newer, is used.
export PATH="$PATH:$PWD/.local/tools/cargo/bin"

say() { printf '[%s] %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# at_least HAVE WANT: whether version HAVE is WANT or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

# ensure_cargo_tool NAME VERSION: installs cargo-NAME from crates.io unless it is there, at that version or newer.
ensure_cargo_tool() {
    local name=$1 version=$2 have
    have=$(cargo "$name" --version 2>/dev/null | awk 'NR == 1 { print $2 }') || have=
    if [ -n "$have" ] && at_least "$have" "$version"; then
        return
    fi
    command -v cargo >/dev/null || die "Rust is missing: install the toolchain that Cargo.toml names (rust-version) first."
    say "installing cargo-$name $version into .local/tools (some minutes, once)"
    # A directory of its own: the repository's lints and lock file are none of its business.
    cargo install --quiet --locked "cargo-$name" --version "$version" --root "$PWD/.local/tools/cargo" ||
        die "cargo install cargo-$name --version $version failed; its own message is above."
}
