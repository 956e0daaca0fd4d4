#!/bin/sh
# A real disk is pulled free of its template while you watch (make demo). Everything lives in one temporary folder, which
# is gone at the end, and after Ctrl-C too. DEMO_MIB and DEMO_BANDWIDTH make it smaller, larger, slower or faster.
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
blockjobfs=${BLOCKJOBFS:-$here/blockjobfs}
size_mib=${DEMO_MIB:-1024}
bandwidth=${DEMO_BANDWIDTH:-48M}
chunk_mib=64
dir=

fail() {
	echo "demo: $*" >&2
	exit 1
}

# The processes that were started on the temporary folder: the daemon and its storage daemon.
ours() {
	for process in /proc/[0-9]*; do
		pid=${process#/proc/}
		[ "$pid" != $$ ] || continue
		if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$dir/"; then echo "$pid"; fi
	done
}

mounted() {
	grep -qF " $dir/mnt fuse" /proc/self/mounts 2>/dev/null
}

# For good measure with "lazy", if somebody else has a shell in there.
unmount() {
	if [ "$(id -u)" = 0 ]; then
		umount ${1:+-l} "$dir/mnt"
	else
		fusermount3 -u ${1:+-z} "$dir/mnt"
	fi
}

# Unmounting ends the daemon, and that its storage daemon. Whoever is still there after 10 seconds is ended by its id.
stop() {
	if mounted; then
		unmount 2>/dev/null || unmount lazy
	fi
	tries=0
	while left=$(ours) && [ -n "$left" ]; do
		tries=$((tries + 1))
		# shellcheck disable=SC2086
		case $tries in
		100) kill $left 2>/dev/null ;;
		120) kill -9 $left 2>/dev/null ;;
		140) break ;;
		esac
		sleep 0.1
	done
	! mounted
}

clean_up() {
	status=$?
	trap '' INT TERM HUP
	trap - EXIT
	printf '%s' "$show_cursor"
	cd /
	if [ -n "$dir" ]; then
		stop || echo "demo: $dir/mnt is still mounted" >&2
		mounted || rm -rf "$dir"
	fi
	exit "$status"
}

interrupted() {
	printf '\ndemo: interrupted, cleaning up\n'
	exit 130
}

if [ -t 1 ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
	hide_cursor=$(printf '\033[?25l') show_cursor=$(printf '\033[?25h')
else
	bold='' plain='' hide_cursor='' show_cursor=''
fi

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# Shows a command the way a person would type it inside the folder, and runs it.
run() {
	printf '$ %s\n' "$*"
	eval "$*" || fail "that did not work: $*"
}

bar() {
	percent=$1 text=$2
	if [ -t 1 ]; then
		filled=$(printf '%*s' $((percent * 40 / 100)) '' | tr ' ' '#')
		printf '\r  [%-40s] %3d%%  %-32s' "$filled" "$percent" "$text"
	elif [ "$percent" -ge "$next_line" ]; then
		printf '  %3d%%  %s\n' "$percent" "$text"
		next_line=$((percent - percent % 20 + 20))
	fi
}

# --- is all that is needed there? ---

[ -x "$blockjobfs" ] || fail "$blockjobfs is not built: run make first"
[ -e /dev/fuse ] || fail "/dev/fuse is missing: load the module (modprobe fuse), or start the container with --device /dev/fuse --cap-add SYS_ADMIN"
for tool in qemu-img qemu-io qemu-storage-daemon; do
	command -v "$tool" >/dev/null || fail "$tool is missing: run .ci/deps demo"
done
where=${TMPDIR:-/tmp}
[ -d "$where" ] && [ -w "$where" ] || fail "$where is no folder that can be written to: set TMPDIR"
need_kib=$((size_mib * 1024 * 9 / 4 + 65536))
room_kib=$(df -Pk "$where" | awk 'NR == 2 { print $4 }')
[ "${room_kib:-0}" -ge "$need_kib" ] ||
	fail "$where has $((${room_kib:-0} / 1024)) MiB free, $((need_kib / 1024)) MiB are needed: set TMPDIR to a folder with more room"

trap clean_up EXIT
trap interrupted INT TERM HUP
dir=$(mktemp -d "$where/blockjobfs-demo.XXXXXX") || fail "cannot make a folder in $where"
dir=$(cd "$dir" && pwd -P)
cd "$dir" || fail "cannot enter $dir"
mkdir mnt

# --- the template and the disk on top of it ---

say "A template with $size_mib MiB of real data, and a disk on top of it that has none of its own yet:"
run "qemu-img create -q -f qcow2 template.qcow2 ${size_mib}M"
next_line=0
done_mib=0
while [ "$done_mib" -lt "$size_mib" ]; do
	part=$((size_mib - done_mib))
	[ "$part" -le "$chunk_mib" ] || part=$chunk_mib
	head -c "${part}M" /dev/urandom >chunk || fail "cannot write to $dir"
	qemu-io -f qcow2 -c "write -q -s chunk ${done_mib}M ${part}M" template.qcow2 || fail "cannot write the template"
	done_mib=$((done_mib + part))
	bar $((done_mib * 100 / size_mib)) "writing random data"
done
rm -f chunk
[ ! -t 1 ] || echo
run "qemu-img create -q -f qcow2 -b template.qcow2 -F qcow2 web1.qcow2"
run "du -h template.qcow2 web1.qcow2"

# --- the mount ---

say "The disk as a folder. No virtual machine runs, so blockjobfs starts a storage daemon of its own for the image:"
printf '$ blockjobfs image:web1.qcow2 mnt\n'
"$blockjobfs" "image:$dir/web1.qcow2" "$dir/mnt" || fail "blockjobfs did not start"
set -- mnt/domains/web1/disks/*
[ -d "$1" ] || fail "no disk under mnt/domains/web1/disks: $(cat mnt/domains/web1/error 2>/dev/null)"
disk=$1
run "cd $disk"
run "ls"
run "cat chain"

# --- the pull ---

say "Pull: what the template holds is copied into the disk, which can be in use all the while."
run "echo bandwidth=$bandwidth > pull"
next_line=0
printf '%s' "$hide_cursor"
while :; do
	read -r word <status || fail "the mount has gone"
	read -r cur end <progress || fail "the mount has gone"
	percent=0
	[ "$end" -eq 0 ] || percent=$((cur * 100 / end))
	# It may have ended between the two: all of it is done only then.
	[ "$percent" -lt 100 ] || read -r word <status || fail "the mount has gone"
	bar "$percent" "$word, $((cur >> 20)) of $((end >> 20)) MiB"
	case $word in completed | failed | cancelled | lost | idle) break ;; esac
	sleep 0.25
done
printf '%s' "$show_cursor"
[ ! -t 1 ] || echo
[ "$word" = completed ] || fail "the pull ended as $word: $(cat job)"

say "What happened, and what the disk stands on now:"
run "cat events"
run "cat chain"
run "cd $dir"

# --- the proof ---

say "The mount goes, and QEMU's own tools look at the disk:"
if [ "$(id -u)" = 0 ]; then echo '$ umount mnt'; else echo '$ fusermount3 -u mnt'; fi
stop || fail "$dir/mnt cannot be unmounted"
run "qemu-img info web1.qcow2"
if qemu-img info --output=json web1.qcow2 | grep -q '"backing-filename"'; then
	fail "something still backs the disk"
fi
run "qemu-img compare template.qcow2 web1.qcow2"

say "Nothing backs the disk any more, and every byte is the template's. On your own machine:"
cat <<TEXT
  a running QEMU      start it with -qmp unix:/run/vm.qmp,server=on,wait=off (it can have several -qmp)
                      $here/blockjobfs /run/vm.qmp MOUNTPOINT
  an offline image    $here/blockjobfs image:DISK.qcow2 MOUNTPOINT
  then                cat MOUNTPOINT/README
                      echo bandwidth=50M > MOUNTPOINT/domains/vm/disks/DISK/pull
                      cat MOUNTPOINT/domains/vm/disks/DISK/wait
TEXT
