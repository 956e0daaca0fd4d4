"""
Conversations of the daemon with real QEMUs, written down and played back.

Run as a program it records: `python3 tests/e2e/recorded.py` with the QEMU of QEMU_SYSTEM and QEMU_STORAGE_DAEMON. A relay stands between
the daemon and QEMU and writes down every message; the schema is shortened to the commands that the daemon may use. test_recorded.py plays
all files of the folder recorded/ to the daemon, so that what each version of QEMU says is tested where that version is not at hand.
"""

import contextlib
import itertools
import json
import os
import queue
import re
import shutil
import socket
import threading

import images
from system import SLOW, wait_for

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded")
HERE = "@FOLDER@"  # stands for the folder of the images
ID = re.compile(r"blockjobfs-[A-Za-z0-9._-]+")
SCHEMA_OF = {"query-status", "query-jobs", "job-cancel", "job-pause", "job-resume", "job-complete", "job-finalize", "job-dismiss", "query-block",
             "block-job-set-speed", "block-stream", "block-commit", "block-job-cancel", "drive-mirror", "drive-backup", "blockdev-mirror",
             "blockdev-backup", "query-named-block-nodes", "x-debug-query-block-graph", "blockdev-del", "blockdev-add", "blockdev-create",
             "human-monitor-command", "blockdev-reopen", "blockdev-snapshot", "blockdev-snapshot-sync", "transaction", "query-block-jobs",
             "query-qmp-schema", "query-version", "query-name", "query-uuid", "change-backing-file"}
# What is done with the disk, in this order: file, words, and how it is ended when it is ready.
STEPS = [("commit", "top=[1]", None), ("pull", "bandwidth=1", "abort"), ("commit", "bandwidth=1", "abort"), ("commit", "", "finish"), ("pull", "", None),
         ("copy", f"dest={HERE}/copy.qcow2", "finish"), ("copy", f"dest={HERE}/second.qcow2", "pivot")]


def steps(machine):
    """A storage daemon's disk cannot go over to another image."""
    return [step for step in STEPS if machine or step[2] != "pivot"]


def carry_out(disk, step, folder):
    """One step, to its end; what there is to be seen of it then."""
    name, words, end = step
    disk.write(name, words.replace(HERE, folder) + "\n")
    if end == "abort":
        disk.write("abort", "\n")
    elif end:
        wait_for(lambda: disk.status == "ready", 10, "ready")
        disk.write(end, "\n")
    final = disk.wait()
    return {"final": final, "type": disk.job["type"], "result": disk.job["result"],
            "chain": [path.replace(folder, HERE) for path in disk.chain],
            "released": [path.replace(folder, HERE) for path in disk.events(f"job-{final}")[-1]["released"]]}


def lines_of(sock):
    rest = b""
    while True:
        data = sock.recv(1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from whole


# --- recording ---


class Relay:
    """Lets one client through to the socket @path, and writes down what both say: [("to" or "from", message)]."""

    def __init__(self, path, listen):
        self.messages, self.numbers, self.asked = [], itertools.count(1), {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(listen)
        self.listener.listen(1)
        self.far = socket.socket(socket.AF_UNIX)
        self.far.connect(path)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        near, _ = self.listener.accept()
        threading.Thread(target=self.pass_on, args=("to", near, self.far), daemon=True).start()
        self.pass_on("from", self.far, near)

    def number(self, way, message):
        """The message as it is written down: the daemon uses its numbers again, and has none on some; here each command has its own."""
        if way == "to":
            number = next(self.numbers)
            self.asked.setdefault(message.get("id"), []).append(number)
            return {**message, "id": number}
        if "return" in message or "error" in message:
            return {**message, "id": self.asked[message.get("id")].pop(0)}
        return message

    def pass_on(self, way, source, target):
        """Commands have no newline of their own: they are taken apart by the decoder."""
        decoder, rest = json.JSONDecoder(), ""
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                rest += data.decode()
                while rest.strip():
                    try:
                        message, used = decoder.raw_decode(rest.lstrip())
                    except json.JSONDecodeError:
                        break
                    rest = rest.lstrip()[used:]
                    self.messages.append((way, self.number(way, message)))
                target.sendall(data)


def shorten(schema):
    """The commands that are used, and the names of their arguments."""
    commands = [entry for entry in schema if entry["meta-type"] == "command" and entry["name"] in SCHEMA_OF]
    types = {entry["arg-type"] for entry in commands}
    kept = [{"name": entry["name"], "meta-type": "object", "members": [{"name": member["name"], "type": "any"} for member in entry["members"]]}
            for entry in schema if entry["name"] in types and entry["meta-type"] == "object"]
    return [{key: entry[key] for key in ("name", "meta-type", "arg-type")} for entry in commands] + kept


def record(start, machine, mount, folder):
    """A whole session with the QEMU that @start gives; its text."""
    base = images.fill(images.create(f"{folder}/base.qcow2"), (0, 2))
    mid = images.fill(images.create(f"{folder}/mid.qcow2", base), (1, 2))
    top = images.fill(images.create(f"{folder}/top.qcow2", mid), (2, 2))
    qemu, name = start(top)
    relay = Relay(qemu.socket, f"{folder}/relay.qmp")
    disk = mount(f"vm={folder}/relay.qmp").disk("vm", name)
    version = qemu.monitor.greeting["QMP"]["version"]["qemu"]
    head = {"qemu": f"{version['major']}.{version['minor']}.{version['micro']}", "machine": machine, "disk": name, "steps": []}
    for step in steps(machine):
        head["steps"].append({"step": step, "end": carry_out(disk, step, folder)})
    shortened = []
    asked = {message["id"]: message["execute"] for way, message in relay.messages if way == "to"}
    for way, message in relay.messages:
        message.pop("timestamp", None)
        if way == "from" and asked.get(message.get("id")) == "query-qmp-schema":
            message["return"] = shorten(message["return"])
        shortened.append(json.dumps({way: message}, separators=(",", ":")).replace(folder, HERE))
    return "\n".join([json.dumps(head).replace(folder, HERE)] + shortened) + "\n"


# --- playing ---


class Player:
    """
    QEMU's part of a recorded conversation, on a socket. The daemon asks more or less often than it did then, as time passes: a
    question out of turn is answered as the last time, one that does not come is passed over.
    """

    def __init__(self, path, text, folder):
        head, *lines = text.splitlines()
        self.head, self.messages = json.loads(head), [json.loads(line.replace(HERE, folder)) for line in lines]
        self.answers = {message["from"]["id"]: message["from"] for message in self.messages if "id" in message.get("from", {})}
        self.at, self.last, self.names, self.states = 0, {}, {}, {}
        self.strange = []  # commands that nobody had sent then
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        threading.Thread(target=self.run, daemon=True).start()

    def close(self):
        self.listener.close()

    def send(self, message):
        text = json.dumps(message)
        for recorded, real in self.names.items():
            text = text.replace(recorded, real)
        self.peer.sendall(text.encode() + b"\r\n")

    def run(self):
        with contextlib.suppress(OSError):
            self.peer, _ = self.listener.accept()
            commands = queue.Queue()
            threading.Thread(target=self.listen, args=(commands,), daemon=True).start()
            while True:
                self.tell()
                try:
                    command = commands.get(timeout=0.1 * SLOW)
                except queue.Empty:
                    self.pass_over()
                    continue
                if command is None:
                    return
                self.answer(command)

    def listen(self, commands):
        decoder, rest = json.JSONDecoder(), ""
        with contextlib.suppress(OSError):
            while data := self.peer.recv(1 << 16):
                rest += data.decode()
                while rest.strip():
                    try:
                        message, used = decoder.raw_decode(rest.lstrip())
                    except json.JSONDecodeError:
                        break
                    rest = rest.lstrip()[used:]
                    commands.put(message)
        commands.put(None)

    def as_events_told(self, jobs):
        """The jobs as they were told last, in the states that events have told of since."""
        jobs = [{**job, "status": self.states.get(job["device"], job["status"])} for job in jobs]
        return [job for job in jobs if job["status"] != "null"]

    def tell(self):
        """Greeting and events, up to the next command."""
        while self.at < len(self.messages) and "from" in self.messages[self.at]:
            message = self.messages[self.at]["from"]
            self.at += 1
            if message.get("event") == "JOB_STATUS_CHANGE":
                self.states[message["data"]["id"]] = message["data"]["status"]
            if "id" not in message:
                self.send(message)

    def is_question(self, message):
        return message["execute"].startswith(("query-", "x-debug-query-"))

    def pass_over(self):
        if self.at < len(self.messages) and self.is_question(self.messages[self.at]["to"]):
            self.learn(self.messages[self.at]["to"])
            self.at += 1

    def learn(self, recorded):
        self.last[recorded["execute"]] = self.answers.get(recorded["id"])

    def find(self, command):
        """The place where it was sent then, if only questions stand between."""
        for at in range(self.at, len(self.messages)):
            recorded = self.messages[at].get("to")
            if recorded and recorded["execute"] == command["execute"]:
                return at
            if recorded and not self.is_question(recorded):
                return None
        return None

    def answer(self, command):
        at = self.find(command)
        while at is not None and self.at <= at:
            self.tell()
            recorded = self.messages[self.at]["to"]
            self.learn(recorded)
            self.at += 1
            if self.at > at:
                self.names.update(zip(ID.findall(json.dumps(recorded)), ID.findall(json.dumps(command))))
        answer = self.last.get(command["execute"])
        if answer is None or at is None and not self.is_question(command):
            if not self.is_question(command):
                self.strange.append(command["execute"])
            answer = {"error": {"class": "GenericError", "desc": "this was not recorded"}}
        if at is None and command["execute"] == "query-block-jobs" and "return" in answer:
            answer = {"return": self.as_events_told(answer["return"])}
        answer = {key: value for key, value in answer.items() if key != "id"}
        self.send({**answer, "id": command["id"]} if "id" in command else answer)


def main():
    import conftest
    from mount import Mount
    from qemu import Machine, StorageDaemon, blockdev

    def machine(top):
        return Machine(folder, "vm", ["-drive", f"file={top},if=none,id=drv0", "-device", "virtio-blk-pci,drive=drv0,id=vda"]), "vda"

    def daemon(top):
        return StorageDaemon(folder, "vm", ["--blockdev", blockdev("disk0", top)]), "disk0"

    conftest.live_apart()
    for kind, start in (("machine", machine), ("daemon", daemon)):
        folder = conftest.new_folder()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)

            def begin(top):
                qemu, name = start(top)
                stack.callback(qemu.close)
                return qemu, name

            def mount(source):
                mounted = Mount(folder, [source])
                stack.callback(mounted.terminate)
                return mounted

            text = record(begin, kind == "machine", mount, folder)
            name = f"{kind}-{json.loads(text.splitlines()[0])['qemu']}.jsonl"
            with open(os.path.join(FOLDER, name), "w") as file:
                file.write(text)
            print(name, len(text), "bytes")


if __name__ == "__main__":
    main()
