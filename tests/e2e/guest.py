"""A guest that writes to its disk while jobs work on it, and remembers what it must read."""

import os
import random
import shutil

import images
from images import MIB


class Guest:
    """@send carries out a command of qemu-io on the disk as the guest has it; @shadow is a raw file that reads the same."""

    CHUNK = 64 << 10

    def __init__(self, send, image, shadow):
        images.run(images.IMG, "convert", "-O", "raw", image, shadow)
        self.send, self.shadow, self.writes = send, shadow, 0
        self.random = random.Random(1)

    def write(self):
        """Somewhere, often over what the job is about to come to or has done; sometimes zeros, and odd pieces."""
        first = self.random.randrange(0, images.SIZE - MIB, 512)
        length = self.random.choice([512, 4096, self.CHUNK, MIB // 2 + 512])
        pattern = self.random.randrange(0, 256)
        zeros = self.random.random() < 0.1
        self.send(f"write -q -z {first} {length}" if zeros else f"write -q -P {pattern} {first} {length}")
        with open(self.shadow, "r+b") as file:
            os.pwrite(file.fileno(), bytes([0 if zeros else pattern]) * length, first)
        self.writes += 1

    def keep(self, path):
        """What the disk reads as now, for later."""
        return shutil.copy(self.shadow, path)


def on_machine(qemu, what):
    """@what: "-d" and a device, or a drive."""
    def send(command):
        answer = qemu.monitor("human-monitor-command", command_line=f'qemu-io {what} "{command}"')
        assert answer == "", answer
    return send


def over_nbd(socket, export="disk0"):
    def send(command):
        images.run(images.IO, "-f", "raw", "-c", command, f"nbd+unix:///{export}?socket={socket}")
    return send


def reads_as(image, shadow, fmt="qcow2"):
    """Fails unless @image reads as the raw file @shadow."""
    images.run(images.IMG, "compare", "-f", "raw", "-F", fmt, shadow, image)
