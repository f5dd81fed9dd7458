#!/usr/bin/env bash
# Runs a fuzz target: fuzz/run.sh TARGET SECONDS
#
# It begins with corpus/TARGET, written by hand, and found/TARGET.tar.gz, what earlier runs have found. What reaches
# something that nothing else reaches is packed again, the fewest that reach all of it. What fails is in artifacts/TARGET.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")"
target=$1 seconds=$2
fuzz() {
    nice -n 19 "${CARGO:-cargo}" +nightly fuzz run -s none --fuzz-dir . "$target" "$@" -rss_limit_mb=2048 -timeout=20 -max_len=16384
}

found=$(mktemp -d) fewest=$(mktemp -d)
trap 'rm -rf "$found" "$fewest"' EXIT
if [ -f "found/$target.tar.gz" ]; then tar -xzf "found/$target.tar.gz" -C "$found"; fi
fuzz "$found" "corpus/$target" -- "-max_total_time=$seconds"
fuzz "$fewest" "corpus/$target" "$found" -- -set_cover_merge=1
# The same files are the same archive.
mkdir -p found
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=644 -C "$fewest" -c $(cd "$fewest" && ls) | gzip -9n >"found/$target.tar.gz"
