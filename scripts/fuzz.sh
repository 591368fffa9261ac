#!/bin/sh
# usage: fuzz.sh [TARGET…]
# Build the programs of fuzz/ and feed each, or each TARGET, with FUZZ_RUNS inputs of libFuzzer's making (100000 unless set).
# Print executions and findings of each. What was learnt stays in the target directory, and so do the findings: the next run
# goes on from there. FUZZ_SEED makes a run that can be repeated.
set -eu
cd "$(dirname "$0")/.."

runs=${FUZZ_RUNS:-100000}
target_dir=${CARGO_TARGET_DIR:-target}/fuzz
# Shorter inputs are tried more often, and what a few lines do together is what more of them do.
longest_bytes=1024
longest_seconds=10
most_memory_mib=2048

# Counters at each branch and comparison, without a sanitizer, for which Rust would have to be a nightly one. They take the
# place of .cargo/config.toml's flags: libFuzzer cannot be part of a static program.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --release --locked --manifest-path fuzz/Cargo.toml --target-dir "$target_dir"
programs=$target_dir/$(rustc -vV | sed -n 's/^host: //p')/release

# The target bundle writes files, of which a disk would be the slowest part.
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)
code=0
table="target executions per_second findings"
for target in "$@"; do
	corpus=$target_dir/corpus/$target findings=$target_dir/findings/$target log=$target_dir/$target.log
	mkdir -p "$corpus" "$findings"
	"$programs/$target" -runs="$runs" -seed="${FUZZ_SEED:-0}" -max_len=$longest_bytes -timeout=$longest_seconds \
		-rss_limit_mb=$most_memory_mib -print_final_stats=1 -artifact_prefix="$findings/" \
		"$corpus" "fuzz/seeds/$target" >"$log" 2>&1 && found=0 || found=1
	if [ $found -ne 0 ]; then
		code=1
		echo "$target: the end of $log, which names the input that is to become a test:"
		tail -n 40 "$log"
	fi
	count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
	table="$table
$target ${count:-?} ${rate:-?} $found"
done
echo "$table" | while read -r target count rate found; do printf '%-14s %12s %12s %9s\n' "$target" "$count" "$rate" "$found"; done
exit $code
