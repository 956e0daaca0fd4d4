#!/bin/sh
# The end-to-end tests, in as many parts at once as there are processors: they mostly wait. E2E_PARTS=1 makes it one.
#	tests/e2e.sh [pytest's words...]
# With E2E_ALONE=1 (.ci/run) those that failed run once more, alone, and only what fails again counts; both are told.
set -u
cd "$(dirname "$0")/.." || exit 1
parts=${E2E_PARTS:-$(nproc)}
logs=$(mktemp -d) || exit 1
trap 'rm -rf "$logs"' EXIT
trap 'kill $(cat "$logs"/*.pid 2>/dev/null) 2>/dev/null; exit 130' INT TERM HUP

run() {
	number=$1
	shift
	E2E_PART=$number/$parts "${PYTHON:-/usr/bin/python3}" -m pytest -q -o cache_dir="$logs/cache$number" tests/e2e "$@" &
	echo $! >"$logs/$number.pid"
	wait $!
	echo $? >"$logs/$number.status"
}

# The first part is shown as it goes, the others when they are over.
number=2
while [ "$number" -le "$parts" ]; do
	run "$number" "$@" >"$logs/$number.log" 2>&1 &
	number=$((number + 1))
done
run 1 "$@" 2>&1 | tee "$logs/1.log"
wait
number=2
while [ "$number" -le "$parts" ]; do
	cat "$logs/$number.log"
	number=$((number + 1))
done

count() {
	cat "$logs"/[0-9]*.log | grep -aE "^(=+ )?[0-9]+ [a-z]+(, [0-9]+ [a-z]+)* in [0-9.]+s" | grep -aoE "[0-9]+ $1" |
		awk '{ sum += $1 } END { print sum + 0 }'
}

# pytest ends with 5 when a part has no test, with 1 when tests have failed, and with more when it could not go on.
failed=$(($(count failed) + $(count error)))
passed=$(count passed)
broken=0
for status in "$logs"/*.status; do
	case $(cat "$status") in 0 | 1 | 5) ;; *) broken=1 ;; esac
done
if [ "$failed" -gt 0 ] && [ "$failed" -le 10 ] && [ "${E2E_ALONE:-0}" = 1 ]; then
	again=0
	for cache in "$logs"/cache*; do
		number=${cache##*/cache}
		[ "$(cat "$logs/$number.status")" = 1 ] || continue
		echo "--- those that failed, alone:"
		# All of its part that failed, and not a part of that.
		E2E_PART=1/1 "${PYTHON:-/usr/bin/python3}" -m pytest -q -o cache_dir="$cache" --lf tests/e2e "$@" || again=1
	done
	if [ "$again" = 0 ]; then
		echo "$failed failed beside others and passed alone: see above"
		passed=$((passed + failed))
		failed=0
	fi
fi
echo "end-to-end tests: $passed passed, $failed failed, $(count skipped) skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ] && [ "$broken" = 0 ]
