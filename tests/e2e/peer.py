"""
A scripted QMP peer: a QEMU made of Python, for what a real one will not show on demand.

Left alone it behaves like a machine with the disks it is given, and carries jobs through the states that QEMU carries
them through. A test changes what it wants to be otherwise: `answers[command]` replaces the answer to a command, `connected`
replaces what a new connection is told first, `chunk` splits everything that is sent.
"""

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from monitor import Monitor
from system import SLOW, SYSTEM, end

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}, "package": ""}, "capabilities": ["oob"]}}
NO_ANSWER = object()  # an answer that never comes
SIZE = 64 << 20


@functools.lru_cache(maxsize=None)
def schema():
    """query-qmp-schema of the real QEMU at hand."""
    folder = tempfile.mkdtemp(prefix="bjfs-")
    path = f"{folder}/qmp"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    process = subprocess.Popen(
        [SYSTEM, "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-machine", "none",
         "-chardev", f"socket,id=m,fd={listener.fileno()},server=on,wait=off", "-mon", "chardev=m,mode=control"],
        pass_fds=[listener.fileno()])
    listener.close()
    try:
        return Monitor(path)("query-qmp-schema")
    finally:
        end(process)
        shutil.rmtree(folder)


def without(*gone):
    """The real schema without some commands ("job-cancel") or arguments ("block-stream auto-finalize")."""
    commands = {name for name in gone if " " not in name}
    arguments = {tuple(name.split(" ")) for name in gone if " " in name}
    entries = [dict(entry) for entry in schema() if not (entry["meta-type"] == "command" and entry["name"] in commands)]
    command_of = {entry["arg-type"]: entry["name"] for entry in entries if entry["meta-type"] == "command"}
    for entry in entries:
        if entry["name"] in command_of and "members" in entry:
            command = command_of[entry["name"]]
            entry["members"] = [member for member in entry["members"] if (command, member["name"]) not in arguments]
    return entries


class PeerError(Exception):
    """An answer that is an error."""

    def __init__(self, text, kind="GenericError"):
        super().__init__(text)
        self.error = {"class": kind, "desc": text}


class FakeDisk:
    """A disk of the machine: its names, and its chain as (node, path) pairs, active image first."""

    def __init__(self, qdev="vd0", chain=None, device="", node="fmt0", size=SIZE, fmt="qcow2"):
        self.qdev, self.device, self.size, self.fmt = qdev, device, size, fmt
        self.chain = [(node, "/images/disk.qcow2"), ("fmt1", "/images/template.qcow2")] if chain is None else chain

    def image(self, depth=0):
        node, path = self.chain[depth]
        image = {"filename": path, "format": self.fmt, "virtual-size": self.size, "actual-size": 4096, "dirty-flag": False}
        if depth + 1 < len(self.chain):
            image["backing-image"] = self.image(depth + 1)
            image["backing-filename"] = image["full-backing-filename"] = self.chain[depth + 1][1]
            image["backing-filename-format"] = self.fmt
        return image

    def query_block(self):
        node, path = self.chain[0]
        inserted = {"file": path, "node-name": node, "ro": False, "drv": self.fmt, "encrypted": False,
                    "backing_file_depth": len(self.chain) - 1, "image": self.image(), "detect_zeroes": "off",
                    "cache": {"no-flush": False, "direct": False, "writeback": True}, "write_threshold": 0,
                    **dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)}
        if len(self.chain) > 1:
            inserted["backing_file"] = self.chain[1][1]
        entry = {"device": self.device, "locked": False, "removable": False, "type": "unknown", "io-status": "ok",
                 "inserted": inserted}
        if self.qdev:
            entry["qdev"] = self.qdev if self.qdev.startswith("/") else f"/machine/peripheral/{self.qdev}/virtio-backend"
        return entry


class Connection:
    def __init__(self, peer, sock):
        self.peer, self.socket = peer, sock
        self.lock = threading.Lock()

    def raw(self, data):
        """Sends bytes, in pieces if the peer is told to. The other end may be gone."""
        chunk = self.peer.chunk or len(data) or 1
        with self.lock, contextlib.suppress(OSError):
            for start in range(0, len(data), chunk):
                self.socket.sendall(data[start:start + chunk])

    def send(self, message):
        self.raw(json.dumps(message).encode() + self.peer.newline)

    def event(self, name, **data):
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        self.send({"event": name, "data": data, "timestamp": stamp})

    def hang_up(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Peer:
    def __init__(self, path, disks=None, answers=None, connected=None, chunk=0, newline=b"\r\n", machine=True, schema=None):
        self.socket = path
        self.disks = [FakeDisk()] if disks is None else disks
        self.answers = dict(answers or {})
        self.connected = connected or (lambda connection: connection.send(GREETING))
        self.chunk, self.newline, self.machine = chunk, newline, machine
        self.schema = schema
        self.jobs = {}
        self.commands = []  # (name, arguments) in the order they came
        self.connections = []
        self.changed = threading.Condition()
        self.closing = False
        self.listen()

    # --- the socket ---

    def listen(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        self.listener.listen(8)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while not self.closing:
                sock, _ = listener.accept()
                connection = Connection(self, sock)
                self.connections.append(connection)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        self.connected(connection)
        rest = b""
        with contextlib.suppress(OSError):
            while True:
                data = connection.socket.recv(1 << 16)
                if not data:
                    break
                rest += data
                decoder = json.JSONDecoder()
                while rest.strip():
                    text = rest.decode().lstrip()
                    try:
                        message, used = decoder.raw_decode(text)
                    except json.JSONDecodeError:
                        break
                    rest = text[used:].encode()
                    self.answer(connection, message)
        if connection in self.connections:
            self.connections.remove(connection)
        connection.socket.close()
        with self.changed:
            self.changed.notify_all()

    def answer(self, connection, message):
        name, arguments = message.get("execute") or message.get("exec-oob"), message.get("arguments", {})
        with self.changed:
            self.commands.append((name, arguments))
            self.changed.notify_all()
        handler = self.answers.get(name) or getattr(self, "do_" + name.replace("-", "_"), None)
        reply = {"id": message["id"]} if "id" in message else {}
        try:
            if handler is None:
                raise PeerError(f"The command {name} has not been found", "CommandNotFound")
            value = handler(connection, arguments)
            if value is NO_ANSWER:
                return
            reply["return"] = {} if value is None else value
        except PeerError as error:
            reply["error"] = error.error
        except KeyError as error:  # the test has taken the job away meanwhile
            reply["error"] = {"class": "GenericError", "desc": f"no job {error}"}
        connection.send(reply)

    def hang_up(self):
        """The machine goes: the listening socket first, so that nobody comes back."""
        self.stop_listening()
        for connection in list(self.connections):
            connection.hang_up()

    def stop_listening(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

    def close(self):
        self.closing = True
        self.hang_up()

    def event(self, name, **data):
        for connection in list(self.connections):
            connection.event(name, **data)

    # --- what the test asks ---

    def asked(self, name):
        """The arguments of every command of that name that came."""
        return [arguments for command, arguments in self.commands if command == name]

    def wait_asked(self, name, count=1, timeout=10):
        """Until @count commands of that name have come; the arguments of the last."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked(name)) >= count, timeout * SLOW), \
                f"{name} was not asked {count} times, but {self.commands[-20:]}"
        return self.asked(name)[-1]

    def job(self):
        """The only job there is."""
        (job_id, job), = self.jobs.items()
        return job_id, job

    # --- jobs ---

    def start_job(self, job_id, kind="stream", disk=None, quiet=False, **more):
        job = {"type": kind, "status": "created", "offset": 0, "len": SIZE, "speed": 0, "auto-finalize": True,
               "auto-dismiss": True, "disk": disk or self.disks[0], "ready": False, **more}
        self.jobs[job_id] = job
        if not quiet:
            self.become(job_id, "created")
            self.become(job_id, "running")
        return job

    def become(self, job_id, status):
        self.jobs[job_id]["status"] = status
        if status == "null":
            del self.jobs[job_id]
        self.event("JOB_STATUS_CHANGE", id=job_id, status=status)

    def figures(self, job_id):
        job = self.jobs[job_id]
        return {"device": job_id, "type": job["type"], "len": job["len"], "offset": job["offset"], "speed": job["speed"]}

    def succeed(self, job_id):
        """The job has done its work: to pending, or to its end."""
        job = self.jobs[job_id]
        job["offset"] = job["len"]
        self.become(job_id, "waiting")
        self.become(job_id, "pending")
        if job["auto-finalize"]:
            self.conclude(job_id)
        else:
            self.event("BLOCK_JOB_PENDING", type=job["type"], id=job_id)

    def conclude(self, job_id):
        job = self.jobs[job_id]
        if job["type"] == "stream":
            nodes = [node for node, _ in job["disk"].chain]
            keep = nodes.index(job["base"]) if job.get("base") in nodes else len(nodes)
            job["disk"].chain[1:] = job["disk"].chain[keep:]
        self.event("BLOCK_JOB_COMPLETED", **self.figures(job_id))
        self.over(job_id)

    def fail(self, job_id, error="Input/output error"):
        self.jobs[job_id]["error"] = error
        self.become(job_id, "aborting")
        self.event("BLOCK_JOB_COMPLETED", error=error, **self.figures(job_id))
        self.over(job_id)

    def cancel(self, job_id):
        self.jobs[job_id]["error"] = "Operation canceled"
        self.become(job_id, "aborting")
        self.event("BLOCK_JOB_CANCELLED", **self.figures(job_id))
        self.over(job_id)

    def over(self, job_id):
        job = self.jobs[job_id]
        self.become(job_id, "concluded")
        if job["auto-dismiss"]:
            self.become(job_id, "null")

    def ready(self, job_id):
        self.jobs[job_id]["ready"] = True
        self.become(job_id, "ready")
        self.event("BLOCK_JOB_READY", **self.figures(job_id))

    def named(self, arguments):
        job_id = arguments.get("id", arguments.get("device"))
        if job_id not in self.jobs:
            raise PeerError(f"Job not found: {job_id}", "DeviceNotActive")
        return job_id, self.jobs[job_id]

    # --- commands ---

    def do_qmp_capabilities(self, connection, arguments):
        pass

    def do_query_qmp_schema(self, connection, arguments):
        return schema() if self.schema is None else self.schema

    def do_query_status(self, connection, arguments):
        return {"running": False, "singlestep": False, "status": "prelaunch"}

    def do_query_version(self, connection, arguments):
        return GREETING["QMP"]["version"]

    def do_query_block(self, connection, arguments):
        return [disk.query_block() for disk in self.disks]

    def do_query_block_jobs(self, connection, arguments):
        return [{**self.figures(job_id), "status": job["status"], "busy": False, "paused": job["status"] in ("paused", "standby"),
                 "ready": job["ready"], "io-status": job.get("io-status", "ok"), "auto-finalize": job["auto-finalize"],
                 "auto-dismiss": job["auto-dismiss"], **({"error": job["error"]} if "error" in job else {})}
                for job_id, job in self.jobs.items()]

    def do_query_jobs(self, connection, arguments):
        return [{"id": job_id, "type": job["type"], "status": job["status"], "current-progress": job["offset"],
                 "total-progress": job["len"], **({"error": job["error"]} if "error" in job else {})}
                for job_id, job in self.jobs.items()]

    def do_x_debug_query_block_graph(self, connection, arguments):
        nodes, edges, ids = [], [], {}

        def add(name, kind):
            nodes.append({"id": len(nodes) + 1, "type": kind, "name": name})
            return len(nodes)

        def edge(parent, name, child):
            edges.append({"parent": parent, "name": name, "child": child, "perm": [], "shared-perm": []})

        for disk in self.disks:
            above = None
            for node, _ in disk.chain:
                ids[node] = add(node, "block-driver")
                edge(ids[node], "file", add("#file-" + node, "block-driver"))
                if above:
                    edge(above, "backing", ids[node])
                above = ids[node]
            name = disk.query_block().get("qdev", disk.device)
            edge(add(name, "block-backend"), "root", ids[disk.chain[0][0]])
        for job_id, job in self.jobs.items():
            where = add(job_id, "block-job")
            edge(where, "main node", ids[job["disk"].chain[0][0]])
        return {"nodes": nodes, "edges": edges}

    def do_block_stream(self, connection, arguments):
        disk = [disk for disk in self.disks if arguments["device"] in (disk.chain[0][0], disk.device)]
        if not disk:
            raise PeerError(f"Cannot find device='{arguments['device']}' nor node-name='{arguments['device']}'")
        self.start_job(arguments.get("job-id", arguments["device"]), disk=disk[0], speed=arguments.get("speed", 0),
                       base=arguments.get("base-node"), **{key: arguments[key] for key in ("auto-finalize", "auto-dismiss")
                                                           if key in arguments})

    def do_job_pause(self, connection, arguments):
        job_id, job = self.named(arguments)
        self.become(job_id, "paused")

    def do_job_resume(self, connection, arguments):
        job_id, job = self.named(arguments)
        self.become(job_id, "running")

    def do_block_job_set_speed(self, connection, arguments):
        job_id, job = self.named(arguments)
        job["speed"] = arguments["speed"]

    def do_job_cancel(self, connection, arguments):
        self.cancel(self.named(arguments)[0])

    def do_block_job_cancel(self, connection, arguments):
        self.cancel(self.named(arguments)[0])

    def do_job_finalize(self, connection, arguments):
        self.conclude(self.named(arguments)[0])

    def do_job_dismiss(self, connection, arguments):
        self.become(self.named(arguments)[0], "null")

    def do_human_monitor_command(self, connection, arguments):
        return ""

    do_block_job_finalize = do_job_finalize
    do_block_job_dismiss = do_job_dismiss
    do_block_job_pause = do_job_pause
    do_block_job_resume = do_job_resume

    def do_blockdev_del(self, connection, arguments):
        raise PeerError(f"Failed to find node with node-name='{arguments.get('node-name')}'")
