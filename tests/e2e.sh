#!/bin/sh
# The end-to-end tests, in as many parts at once as there are processors: they mostly wait. E2E_PARTS=1 makes it one.
#	tests/e2e.sh [pytest's words...]
set -u
cd "$(dirname "$0")/.." || exit 1
parts=${E2E_PARTS:-$(nproc)}
logs=$(mktemp -d) || exit 1
trap 'rm -rf "$logs"' EXIT
trap 'kill $(cat "$logs"/*.pid 2>/dev/null) 2>/dev/null; exit 130' INT TERM HUP


run() {
	number=$1
	shift
	E2E_PART=$number/$parts "${PYTHON:-/usr/bin/python3}" -m pytest -q -p no:cacheprovider tests/e2e "$@" &
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

# pytest ends with 5 when a part has no test.
failed=0
ran=0
for status in "$logs"/*.status; do
	case $(cat "$status") in
	0) ran=1 ;;
	5) ;;
	*) failed=1 ;;
	esac
done
count() {
	cat "$logs"/*.log | grep -aoE "^(=+ )?([0-9]+ [a-z]+, )*[0-9]+ [a-z]+ in [0-9.]+s|^(=+ )?([0-9]+ [a-z]+, )*[0-9]+ [a-z]+, .* in [0-9.]+s" |
		grep -aoE "[0-9]+ $1" | awk '{ sum += $1 } END { print sum + 0 }'
}
[ $((failed + ran)) -gt 0 ] || echo "no test was run"
echo "end-to-end tests: $(count passed) passed, $(($(count failed) + $(count error))) failed, $(count skipped) skipped"
[ "$failed" = 0 ] && [ "$ran" = 1 ]
