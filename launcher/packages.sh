#!/usr/bin/env bash
# shellcheck disable=SC2034
# packages.sh — what a build needs and how it gets here. Sourced by launcher/quickstart and tests/run:
#
#   packages NAME…         installs missing Debian packages
#   cuda_gpus              prints how many GPUs a driver shows that CUDA 13.0's code runs on; none: says why on stderr
#   cuda_found             prints the folder of an installed CUDA toolkit; fails when there is none
#   cuda_toolkit FOLDER    puts NVIDIA's own wheels from PyPI into FOLDER as a toolkit: 1 GB to fetch, 1.5 GB there; once
#   cuda_wheels FOLDER WHEEL…   the same of some wheels
#
# By hand: launcher/packages.sh cuda FOLDER, then cmake -DTRIMPOT_CUDA_ROOT=FOLDER; launcher/packages.sh cuobjdump FOLDER.

build_packages=(build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libyaml-dev libdnnl-dev
                libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev liblapack3 git python3)

cuobjdump_wheel=nvidia-cuda-cuobjdump==13.2.51 # the first there is as a wheel; for tests alone
# One set that belongs together: CUDA 13.0 update 2, and the libraries that the planner's workspace rows are about.
toolkit_wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 "$cuobjdump_wheel"
                nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9
                nvidia-cudnn-cu13==9.19.0.56)

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

cuda_gpus()
{
    local driver n
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || driver=
    n=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | awk '$1 >= 8' | wc -l) || n=0
    if [ -z "$driver" ]; then
        echo "no NVIDIA driver shows a GPU here" >&2
    elif [ "${driver%%.*}" -lt 580 ]; then
        echo "the NVIDIA driver is $driver; CUDA 13.0 needs 580 or later" >&2
        n=0
    elif [ "$n" = 0 ]; then
        echo "the GPU here is older than compute capability 8.0 (Ampere)" >&2
    fi
    echo "$n"
}

# Where CMakeLists.txt looks.
cuda_found()
{
    local nvcc
    nvcc=$(command -v nvcc || ls "${CUDA_PATH:-/usr/local/cuda}/bin/nvcc" /usr/local/cuda/bin/nvcc 2>/dev/null | head -n 1)
    [ -x "$nvcc" ] && (cd "$(dirname "$(readlink -f "$nvcc")")/.." && pwd)
}

# Not again where the same wheels are there already.
cuda_wheels()
{
    local folder=$1 part library plain log
    shift
    [ "$(cat "$folder/wheels" 2>/dev/null)" = "$*" ] && return 0
    python3 -m pip --version >/dev/null 2>&1 || packages python3-pip || return 1
    echo "fetching $# wheels into $folder"
    rm -rf "$folder" "$folder.part"
    mkdir -p "$(dirname "$folder")"
    log=$(mktemp)
    if ! python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --target "$folder.part" "$@" >"$log" 2>&1; then
        echo "pip failed:" >&2
        tail -n 20 "$log" >&2
        rm -rf "$log" "$folder.part"
        return 1
    fi
    rm -f "$log"
    # nvidia/cu13 is laid out as a toolkit; what other wheels bring goes beside it.
    for part in cudnn nccl; do
        [ ! -d "$folder.part/nvidia/$part" ] || cp -al "$folder.part/nvidia/$part"/{include,lib} "$folder.part/nvidia/cu13/" || return 1
    done
    # Wheels have no libX.so, which is what a linker looks for; CMake looks in lib64 too.
    for library in "$folder.part"/nvidia/cu13/lib/lib*.so.*; do
        plain=${library%%.so.*}.so
        [ ! -e "$library" ] || [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
    done
    [ ! -d "$folder.part/nvidia/cu13/lib" ] || ln -s lib "$folder.part/nvidia/cu13/lib64"
    for part in bin nvvm/bin; do chmod -fR a+rx "$folder.part/nvidia/cu13/$part" || true; done
    mv "$folder.part/nvidia/cu13" "$folder"
    rm -rf "$folder.part"
    echo "$*" >"$folder/wheels"
}

cuda_toolkit() { cuda_wheels "$1" "${toolkit_wheels[@]}"; }

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    case "$#${1:-}" in
    2cuda)
        cuda_toolkit "$2"
        "$2/bin/nvcc" --version | tail -n 2 ;;
    2cuobjdump)
        cuda_wheels "$2" "$cuobjdump_wheel" ;;
    *)
        echo "usage: $0 cuda|cuobjdump FOLDER" >&2
        exit 2 ;;
    esac
fi
