#!/usr/bin/env bash
# packages.sh BUILD_DIR: launcher/packages.sh makes a toolkit out of wheels as pip lays them down (pip is a stand-in here: nothing is
# fetched), once per set of wheels, and leaves nothing half done; and it says which GPUs serve.
. "$(dirname "$0")/../lib.sh"
. "$source/launcher/packages.sh"
mkdir -p "$scratch/bin"
export CALLS=$scratch/calls PATH=$scratch/bin:$PATH

cat >"$scratch/bin/python3" <<'END'
#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
*--version*) exit 0 ;;
*nvidia-cuda-nvcc*) ;;
*) exit 1 ;;
esac
while [ "$1" != --target ]; do shift; done
mkdir -p "$2"/nvidia/cu13/bin "$2"/nvidia/cu13/nvvm/bin "$2"/nvidia/cu13/include "$2"/nvidia/cu13/lib "$2"/nvidia/cudnn/lib \
    "$2"/nvidia/cudnn/include "$2"/nvidia/nccl/lib "$2"/nvidia/nccl/include
touch "$2"/nvidia/cu13/bin/nvcc "$2"/nvidia/cu13/nvvm/bin/cicc "$2"/nvidia/cu13/lib/libcublasLt.so.13 "$2"/nvidia/cudnn/lib/libcudnn.so.9 \
    "$2"/nvidia/nccl/lib/libnccl.so.2 "$2"/nvidia/nccl/include/nccl.h "$2"/nvidia/cudnn/include/cudnn.h
END
chmod +x "$scratch/bin/python3"
at=$scratch/some/toolkit
cuda_toolkit "$at" >/dev/null || fail "no toolkit"
for file in bin/nvcc nvvm/bin/cicc lib/libcublasLt.so lib64/libcublasLt.so.13 lib/libcudnn.so lib/libnccl.so include/nccl.h include/cudnn.h; do
    [ -e "$at/$file" ] || fail "the toolkit has no $file"
done
[ -x "$at/bin/nvcc" ] || fail "nvcc cannot be run"
[ ! -e "$at.part" ] || fail "$at.part is left"
fetched=$(grep -c install "$CALLS")
cuda_toolkit "$at" >/dev/null || fail "no toolkit the second time"
equal "fetches of what is there" "$(grep -c install "$CALLS")" "$fetched"
touch "$at/old"
toolkit_wheels[0]=nvidia-cuda-nvcc==13.0.99
cuda_toolkit "$at" >/dev/null || fail "no toolkit of another version"
[ ! -e "$at/old" ] && grep -q 13.0.99 "$at/wheels" || fail "another version is not another toolkit"
cuda_wheels "$scratch/none" nvidia-nothing==1 >/dev/null 2>&1 && fail "pip failed and nobody said so"
[ ! -e "$scratch/none" ] && [ ! -e "$scratch/none.part" ] || fail "a failed fetch leaves something"
grep -qE 'https?:|[[:space:]]-i[[:space:]]' "$CALLS" && fail "wheels come from PyPI as pip is set up, from no address of our own"

# smi DRIVER CAPABILITY…: what nvidia-smi will say.
smi()
{
    printf '#!/bin/sh\ncase "$*" in *driver*) v="%s" ;; *) v="%s" ;; esac\nfor x in $v; do echo $x; done\n' "$1" "${*:2}" >"$scratch/bin/nvidia-smi"
    chmod +x "$scratch/bin/nvidia-smi"
}
served()
{
    equal "GPUs that serve of $*" "$(smi "$@"; cuda_gpus 2>"$scratch/why")" "$want"
    [ -z "$why" ] || grep -q "$why" "$scratch/why" || fail "$*: does not say '$why'"
}
want=2 why='' served 580.65.06 9.0 8.0 7.5
[ ! -s "$scratch/why" ] || fail "says why there is none where there are two"
want=0 why='needs 580' served 575.57.08 9.0
want=0 why='older than' served 580.65.06 7.5
want=0 why='no NVIDIA driver' served ''
finish
