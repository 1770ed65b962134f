#!/bin/sh
# Takes into fuzz/corpus/TARGET a sample of what `make fuzz` found to reach further: of the fewest inputs that reach as far
# as all do, those up to 1 KiB, and of these at most 48, small and large. Named ones, which once found something, stay.
set -eu
target=$1
folder=${CARGO_TARGET_DIR:-target}/fuzz
kept=fuzz/corpus/$target
program=$(find "$folder" -path "*/release/$target" -type f | head -n 1)
reaching=$(mktemp -d)
trap 'rm -rf "$reaching"' EXIT
mkdir -p "$kept"
"$program" -set_cover_merge=1 "$reaching" "$folder/corpus/$target" >/dev/null 2>&1
find "$kept" -name 'reaches-*' -delete
find "$reaching" -type f -size -1025c -printf '%s %f\n' | sort -n >"$reaching.sizes"
every=$((($(wc -l <"$reaching.sizes") + 47) / 48))
awk -v every="$every" 'NR % every == 0 { print $2 }' "$reaching.sizes" | while read -r name; do
  cp "$reaching/$name" "$kept/reaches-$(echo "$name" | cut -c1-12)"
done
rm -f "$reaching.sizes"
echo "$target: $(find "$kept" -type f | wc -l) inputs kept"
