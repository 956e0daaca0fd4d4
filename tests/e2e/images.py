"""Disk images, made and looked at with QEMU's own tools."""

import json
import os
import subprocess

from system import IMG, IO

MIB = 1 << 20
SIZE = 64 * MIB


def run(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done.stdout


def create(path, backing=None, size=SIZE, fmt="qcow2", backing_fmt="qcow2", cluster_size=None):
    command = [IMG, "create", "-q", "-f", fmt]
    if cluster_size:
        command += ["-o", f"cluster_size={cluster_size}"]
    if backing:
        command += ["-b", backing, "-F", backing_fmt]
    run(*command, path, str(size))
    return path


def fill(path, *ranges, fmt="qcow2"):
    """Random data into the (first MiB, length in MiB) ranges of an image."""
    for first, length in ranges:
        # qemu-io knows no quotes: a name without blanks, in the image's own folder.
        folder, name = os.path.split(path)
        noise = os.path.join(folder, "noise")
        with open(noise, "wb") as file:
            file.write(os.urandom(length * MIB))
        run(IO, "-f", fmt, "-c", f"write -q -s noise {first}M {length}M", "./" + name, cwd=folder)
        os.unlink(noise)
    return path


def interleave(folder, piece, count):
    """The upper one of two images that @count pieces, of @piece bytes each, are in by turns: QEMU copies one at a time."""
    lower, upper = f"{folder}/lower.qcow2", f"{folder}/upper.qcow2"
    create(lower, size=1 << 34, cluster_size=piece)
    create(upper, lower, size=1 << 34, cluster_size=piece)
    for first, path in enumerate((upper, lower)):
        commands = [word for number in range(first, count, 2) for word in ("-c", f"write -q {number * piece} {piece}")]
        run(IO, "-f", "qcow2", *commands, path)
    return upper


def info(path, share=True):
    return json.loads(run(IMG, "info", "--output=json", *(["-U"] if share else []), path))


def backing_of(path):
    """What @path says backs it, or None."""
    return info(path).get("backing-filename")


def same(one, other):
    """qemu-img compare: True if a guest would read the same from both."""
    done = subprocess.run([IMG, "compare", "-q", "-U", one, other], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode in (0, 1), done.stdout
    return done.returncode == 0


def check(path, leaks=False):
    """qemu-img check: fails on corruption, and on clusters that nothing uses unless a QEMU that was killed may have left @leaks."""
    done = subprocess.run([IMG, "check", "-q", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode in ((0, 3) if leaks else (0,)), f"{path}: {done.stdout}"
