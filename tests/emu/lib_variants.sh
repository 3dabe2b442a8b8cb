# lib_variants.sh — sourced behind ../lib.sh by tests that build the emulated device once more, differently: some units changed or
# compiled with other flags, the rest linked as the build left it. The commands are the build's own (compile_commands.json).

# The plugin that variants start from: the one that seeks races.
commands=$build/compile_commands.json
parts=(emu_runtime interface emu_kernels_races trimpot_emu_races)

need_variants() {
    built trimpot_emu_races.so test_ops test_bits compile_commands.json
    [ -n "$(objects_of "${parts[@]}")" ] || skip "$commands names no objects"
}

# The objects of targets: those that the build makes, not those that lie about.
objects_of() {
    local part
    for part; do grep -o -- " -o CMakeFiles/$part\.dir/[^ ]*\.o " "$commands" | sed "s|^ -o |$build/|; s| $||"; done
}

# The command that compiles a kernel, up to its -o.
command_of() {
    grep "\"command\": .*emu_kernels_races.dir.*/emu/$1\.cc\"" "$commands" | head -n 1 |
        sed 's/^ *"command": "//; s/",* *$//; s/ -o [^ ]* -c .*//; s/\\"/"/g; s/\\\\/\\/g'
}

# variant_compiler NAME [flag…]: sets `compiler`: the command by which the kernel NAME is compiled, up to its -o, and the flags behind
# the build's, but -I.
variant_compiler() {
    local name=$1 command flag first=() last=()
    shift
    for flag; do case $flag in -I*) first+=("$flag") ;; *) last+=("$flag") ;; esac; done
    command=$(command_of "$name")
    [ -n "$command" ] || { say "no command for $name in $commands"; return 1; }
    eval "set -- $command"
    while [ "${1##*/}" = ccache ]; do shift; done
    compiler=("$1" "${first[@]}")
    shift
    while [ $# -gt 0 ]; do
        # The build's own headers made ahead are for its own flags.
        if [ "$1" = -include ]; then shift; else compiler+=("$1"); fi
        shift
    done
    compiler+=("${last[@]}")
}

# variant_headers NAME [flag…]: compiles ahead what every kernel includes and no variant changes (CUDA's headers, the emulation's and the
# library's: half of what a small kernel takes), for variant_compile with the same flags. NAME: any kernel.
ahead=
variant_headers() {
    local compiler
    variant_compiler "$@" || return
    ahead=$scratch/ahead.h
    printf '#include <%s>\n' cuda_bf16.h cuda_fp16.h cuda_runtime.h functional initializer_list math.h >"$ahead"
    "${compiler[@]}" -x c++-header -o "$ahead.gch" "$ahead"
}

# variant_compile NAME SOURCE OBJECT [flag…]: as the kernel NAME is compiled, but SOURCE.
variant_compile() {
    local name=$1 source_file=$2 object=$3 compiler
    variant_compiler "$name" "${@:4}" || return
    "${compiler[@]}" ${ahead:+-include "$ahead"} -o "$object" -x c++ -c "$source_file"
}

# variant_link PLUGIN OBJECT…: OBJECTs, and what the build has of every unit whose object's name is not among theirs.
variant_link() {
    local plugin=$1 object rest=()
    shift
    while read -r object; do
        case " ${*##*/} " in *" ${object##*/} "*) ;; *) rest+=("$object") ;; esac
    done < <(objects_of "${parts[@]}")
    g++ -shared -o "$plugin" "$@" "${rest[@]}" -lpthread -ldl
}

# variant_home FOLDER: programs look for plugins beside themselves, so a variant has programs of its own.
variant_home() {
    local program
    mkdir -p "$1"
    for program in test_ops test_bits; do ln -f "$build/$program" "$1/$program" 2>/dev/null || cp "$build/$program" "$1/$program"; done
}
