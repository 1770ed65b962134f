#!/bin/sh
# Takes into fuzz/corpus/TARGET what `make fuzz` found to reach further than what is there: the fewest inputs that reach as
# far, the shortest first, and no more than 16 KiB of them. Named ones, which once found something, always stay.
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
room=16384
for size_and_name in $(find "$reaching" -type f -printf '%s:%f\n' | sort -n); do
  size=${size_and_name%%:*} name=${size_and_name#*:}
  room=$((room - size))
  [ "$room" -ge 0 ] || break
  cp "$reaching/$name" "$kept/reaches-$(echo "$name" | cut -c1-12)"
done
echo "$target: $(find "$kept" -type f | wc -l) inputs kept"
