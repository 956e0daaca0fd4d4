"""
`make bench`: what blockjobfs costs, beside the smallest thing that could do the same. Every figure is a ratio of two things measured in turn in
the same run, or a figure of this run alone with its target. docs/performance.md explains each line. The exit status is 1 if a target is missed.

    bench.py [GROUP...]     files, readers, start, told, bandwidth, idle, live, hung, many,
                         takeover, libvirt, scale; without any: all
"""

import os
import shutil
import sys
import tempfile

import alone
import beside_libvirt
import crowds
from table import Table

GROUPS = {"files": alone.files, "readers": alone.readers, "start": alone.start, "told": alone.told, "bandwidth": alone.bandwidth,
          "idle": crowds.idle, "live": crowds.live, "hung": crowds.hung, "many": alone.many, "takeover": alone.takeover,
          "libvirt": beside_libvirt.libvirt, "scale": crowds.scale}


def main():
    table = Table()
    for name in sys.argv[1:] or GROUPS:
        folder = tempfile.mkdtemp(prefix="bjfs-bench-")
        try:
            GROUPS[name](folder, table)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    table.save(os.environ.get("BENCH_JSON", "bench.json"))
    return table.missed


if __name__ == "__main__":
    sys.exit(main())
