# shellcheck shell=bash disable=SC2034
# packages.sh — sourced by launcher/quickstart and tests/run: `packages NAME…` installs missing Debian packages.

build_packages=(build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libyaml-dev libdnnl-dev
                libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev git python3)

packages()
{
    local name missing=() root=() log
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "not a Debian system: nothing is installed; needed are the equivalents of: $*"
        return 0
    fi
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return 0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "missing packages, and neither root nor sudo: ${missing[*]}" >&2; return 1; }
        root=(sudo)
    fi
    echo "installing ${#missing[@]} packages: ${missing[*]}"
    log=$(mktemp)
    # The lists of a fresh root are empty, those of an old one may name files that are gone: try as it is, then update.
    for _ in 1 2; do
        if "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            "${missing[@]}" </dev/null >"$log" 2>&1; then
            rm -f "$log"
            return 0
        fi
        "${root[@]}" apt-get update -q </dev/null >>"$log" 2>&1 || break
    done
    echo "apt-get failed:" >&2
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
}
