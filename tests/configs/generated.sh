#!/bin/sh
# The shipped recipes are what their table writes: nobody edited one by hand, and none is left over.
set -eu
recipes=$(dirname "$0")/../../configs/recipes
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
sh "$recipes/make_recipes.sh" "$fresh"
diff -r --exclude=make_recipes.sh "$fresh" "$recipes" || {
    echo "configs/recipes differs from what make_recipes.sh writes: change the script and run it" >&2
    exit 1
}
