"""Two builds of the program, to be put in each other's place."""

import os
import re
import shutil
import subprocess

from system import BLOCKJOBFS, wait_for


def version_of(program):
    return subprocess.run([program, "-V"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[1]


def another_build(path):
    """A copy of the program which calls itself another version; as long as the name of this one. Returns that."""
    own = version_of(BLOCKJOBFS)
    other = re.sub(r"[0-9]", "9", own)
    with open(BLOCKJOBFS, "rb") as file:
        data = file.read()
    assert own != other and data.count(own.encode())
    with open(path, "wb") as file:
        file.write(data.replace(own.encode(), other.encode()))
    os.chmod(path, 0o755)
    assert version_of(path) == other
    return other


def build_with_other_memory(path):
    """A copy of the program that does not understand what a server of this one leaves behind (fs/kept.c)."""
    with open(BLOCKJOBFS, "rb") as file:
        data = file.read()
    assert re.search(rb"bjfskep[0-8]", data)
    with open(path, "wb") as file:
        file.write(re.sub(rb"bjfskep[0-8]", b"bjfskep9", data))
    os.chmod(path, 0o755)


class Installed:
    """The program as installed at a path of the test's own, where it is replaced as a package manager does it."""

    def __init__(self, folder):
        self.path, self.folder = f"{folder}/blockjobfs", folder
        os.mkdir(f"{folder}/builds")
        self.builds = [f"{folder}/builds/0", f"{folder}/builds/1"]
        shutil.copy(BLOCKJOBFS, self.builds[0])
        self.versions = [version_of(BLOCKJOBFS), another_build(self.builds[1])]
        self.now = 0
        shutil.copy(self.builds[0], self.path)

    def install(self, source):
        shutil.copy(source, self.path + ".new")
        os.chmod(self.path + ".new", 0o755)
        os.rename(self.path + ".new", self.path)

    def swap(self):
        """The other build takes the place. Returns its version."""
        self.now = 1 - self.now
        self.install(self.builds[self.now])
        return self.versions[self.now]

    def script(self, text):
        """Something else takes the place."""
        with open(self.path + ".new", "w") as file:
            file.write(text)
        os.chmod(self.path + ".new", 0o755)
        os.rename(self.path + ".new", self.path)

    def runs(self, pid):
        """True if the process runs what is installed."""
        try:
            return os.path.samefile(f"/proc/{pid}/exe", self.path)
        except OSError:
            return False


def wait_upgraded(installed, mount):
    """Until keeper and server are the installed program."""
    wait_for(lambda: installed.runs(mount.process.pid) and installed.runs(mount.pid), 15, "the new program to serve")
