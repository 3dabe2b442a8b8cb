# lib_variants.sh — sourced behind ../lib.sh by tests that build the emulated device once more, differently: some units changed or
# compiled with other flags, the rest linked as the build left it. The commands are the build's own (compile_commands.json).

objects=$build/CMakeFiles/trimpot_emu.dir
commands=$build/compile_commands.json

need_variants() {
    built trimpot_emu.so test_ops compile_commands.json
    [ -d "$objects" ] || skip "no objects of trimpot_emu in $build"
    ! grep -q 'fsanitize=' <(command_of soft_cap) || skip "in a sanitized build"
}

# The command that compiles a unit (NAME of kernels/cuda/NAME.cu, or a .cc file of tests/emu), up to its -o.
command_of() {
    local file="/emu/$1.cc"
    grep "\"command\": .*$file\"" "$commands" | grep 'trimpot_emu.dir' | head -n 1 |
        sed 's/^ *"command": "//; s/",* *$//; s/ -o [^ ]* -c .*//; s/\\"/"/g; s/\\\\/\\/g'
}

# variant_compile NAME SOURCE OBJECT [flag…]: as the unit NAME is compiled, but SOURCE, with the flags first.
variant_compile() {
    local name=$1 source_file=$2 object=$3 compiler rest
    shift 3
    read -r compiler rest <<<"$(command_of "$name")"
    eval "set -- \"\$@\" $rest"
    "$compiler" "$@" -o "$object" -x c++ -c "$source_file"
}

# variant_link PLUGIN OBJECT…: OBJECTs, and what the build has of every unit whose object's name is not among theirs.
variant_link() {
    local plugin=$1 object rest=()
    shift
    while read -r object; do
        case " ${*##*/} " in *" ${object##*/} "*) ;; *) rest+=("$object") ;; esac
    done < <(find "$objects" -name '*.o')
    g++ -shared -o "$plugin" "$@" "${rest[@]}" -lpthread -ldl
}

# variant_home FOLDER: programs look for plugins beside themselves, so a variant has programs of its own.
variant_home() {
    mkdir -p "$1"
    local program
    for program in test_ops test_bits; do
        [ -e "$build/$program" ] && { ln -f "$build/$program" "$1/$program" 2>/dev/null || cp "$build/$program" "$1/$program"; }
    done
}
