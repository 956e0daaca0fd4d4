#!/bin/sh
# Runs the Criterion programs given as arguments and adds up their totals. No mount is needed. A sanitizer's report is a failure
# even where every test passed.
set -u
export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
bad=0 passed=0 failed=0
for program in "$@"; do
	out=$("$program" --color=never 2>&1) || bad=1
	printf '%s: ' "${program##*/}"
	printf '%s\n' "$out" | sed -n 's/^\[====\] //p' | tail -n 1
	case $out in
	*Sanitizer* | *'runtime error'*)
		bad=1
		printf '%s\n' "$out"
		;;
	*) printf '%s\n' "$out" | grep -E '^\[(----|FAIL|ERR )' || : ;;
	esac
	counts=$(printf '%s\n' "$out" | sed -n 's/.*Tested: \([0-9]*\) | Passing: \([0-9]*\) .*/\1 \2/p' | tail -n 1)
	if [ -z "$counts" ]; then
		echo "${program##*/}: ended without totals"
		bad=1
		continue
	fi
	passed=$((passed + ${counts#* }))
	failed=$((failed + ${counts% *} - ${counts#* }))
done
echo "unit tests: $passed passed, $failed failed"
exit $bad
