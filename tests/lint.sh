#!/bin/sh
# The house rules that a machine can check, one line a problem: formatting, the arrows between folders, who sees which
# library, sizes of files and functions, scripts that parse, generated docs that are current.
set -u
cd "$(dirname "$0")/.." || exit 1

problems=$(mktemp) || exit 1
trap 'rm -f "$problems"' EXIT
trap 'exit 130' INT TERM HUP

c_files() { find qmp jobs fs tests -name '*.[ch]' | sort; }
problem() { echo "$*" >>"$problems"; }
# lines FILE:LINE:TEXT on standard input become problems with a reason
because() { sed -n "s|^\([^:]*:[0-9]*\):.*|\1: $1|p" >>"$problems"; }
# includes PATTERN FOLDER: who includes what in there
includes() { grep -rnE --include='*.[ch]' "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]$1" "$2" 2>/dev/null; }

# --- formatting ---
# Versions of clang-format do not agree with each other; the files are in the form that this one gives them.
want=14
have=$(clang-format --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
if [ "$have" = "$want" ]; then
	c_files | xargs -r clang-format --dry-run -Werror 2>&1 |
		sed -n 's/^\([^ :]*\):\([0-9]*\):[0-9]*: error: .*/\1 \2/p' |
		awk '!n[$1]++ { first[$1] = $2 } END { for (f in n) print f ":" first[f] ": not formatted, in " n[f] " places (make format)" }' |
		sort >>"$problems"
elif [ -n "$have" ]; then
	echo "lint: formatting is checked with clang-format $want only, here is $have"
else
	problem "clang-format is missing: run .ci/deps"
fi

# --- arrows ---
includes '(\.\./)?(jobs|fs)/' qmp | because 'qmp\/ includes neither jobs\/ nor fs\/'
includes '(\.\./)?fs/' jobs | because 'jobs\/ never includes fs\/'
includes '(\.\./)?qmp/' fs | because 'fs\/ never includes qmp\/'
includes '(fuse3/)?fuse_lowlevel\.h' . | sed 's|^\./||' | grep -vE '^(fs/(session|ops|reply)\.c|tests/(fake|bench)/[^:]*|build/[^:]*):' |
	because 'fuse_lowlevel.h is for fs\/session.c, fs\/ops.c and fs\/reply.c'
includes 'json-c/|<json\.h' . | sed 's|^\./||' | grep -vE '^(qmp/value\.c|jobs/text\.c|build/[^:]*):' |
	because 'json-c is for qmp\/value.c and jobs\/text.c'

# --- sizes, first lines ---
for file in $(c_files); do
	awk -v file="$file" '
		NR == 1 && file ~ /\.c$/ && !/^\/[*\/]/ { print file ":1: does not open with a comment" }
		/^\{$/ { start = NR }
		/^\}$/ && start { if (NR - start + 1 > 70) print file ":" start ": a function of " NR - start + 1 " lines (70)"; start = 0 }
		END { if (NR > 600) print file ": " NR " lines (600)" }
	' "$file" >>"$problems"
done

# --- scripts ---
find .ci tests -type f -not -name '*.[chp]*' | sort | while read -r file; do
	case $(head -n 1 "$file") in
	'#!/bin/sh'*) shell='sh' ;;
	'#!'*bash*) shell='bash' ;;
	*) continue ;;
	esac
	text=$($shell -n "$file" 2>&1) || problem "$file: does not parse: $text"
	[ -x "$file" ] || problem "$file: is not executable"
done
for file in .ci/run .ci/deps; do
	[ -x "$file" ] || problem "$file: is missing"
done
find tests -name '*.py' | sort | while read -r file; do
	python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$file" 2>/dev/null || problem "$file: does not parse"
done

# --- generated docs ---
if [ ! -x ./blockjobfs ]; then
	problem "docs/files.md: not checked, ./blockjobfs is not built"
elif ! ./blockjobfs --list-files 2>/dev/null | cmp -s - docs/files.md; then
	problem "docs/files.md: not current (make docs)"
fi

cat "$problems"
count=$(wc -l <"$problems")
echo "lint: $count problem$([ "$count" -eq 1 ] || echo s)"
[ "$count" -eq 0 ]
