"""A relay between the daemon and a QEMU's monitor, that knows the commands which pass: it can hold answers back, change commands, and cut."""

import json
import os
import socket
import threading


class Relay:
    """Listens on @path for one client at a time, and connects each to the monitor @target."""

    def __init__(self, path, target):
        self.path, self.target = path, target
        self.hold = None  # the command whose answers are held back
        self.change = None  # called with each command (a dict), gives the one to send, or None: the connection is cut
        self.seen = []  # the names of the commands that came
        self.held = []
        self.names = {}
        self.lock = threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.pair = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.target)
            except OSError:
                client.close()
                continue
            self.pair = client, server
            down = threading.Thread(target=self.pump, args=(server, client, self.from_qemu), daemon=True)
            down.start()
            self.pump(client, server, self.to_qemu)
            down.join()
            client.close()
            server.close()

    def pump(self, source, drain, look):
        rest = b""
        try:
            while True:
                data = source.recv(1 << 16)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    line = look(line.strip(), drain)
                    if line:
                        drain.sendall(line + b"\n")
        except OSError:
            pass
        self.cut()

    def to_qemu(self, line, drain):
        message = json.loads(line) if line else None
        if not message:
            return line
        name = message["execute"]
        self.seen.append(name)
        if self.change:
            message = self.change(message)
            if message is None:
                self.cut()
                return None
        self.names[json.dumps(message.get("id"))] = name
        return json.dumps(message).encode()

    def from_qemu(self, line, drain):
        message = json.loads(line) if line else {}
        with self.lock:
            if "id" in message and self.hold and self.names.get(json.dumps(message["id"])) == self.hold:
                self.held.append((drain, line))
                return None
        return line

    def release(self):
        with self.lock:
            self.hold = None
            for drain, line in self.held:
                drain.sendall(line + b"\n")
            self.held = []

    def cut(self):
        for end in self.pair or ():
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.cut()
        os.unlink(self.path)
