"""Many QMP sockets at once, all served by one thread: good ones, silent ones, babbling ones, and such as hang up."""

import contextlib
import json
import os
import random
import selectors
import socket
import threading

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
ANSWERS = {"x-debug-query-block-graph": {"nodes": [], "edges": []}, "qmp_capabilities": {},
           "query-qmp-schema": [{"name": "quit", "meta-type": "command", "arg-type": "0", "ret-type": "0"}]}
KINDS = ("good", "silent", "babbling", "dropping", "halting")


class Crowd:
    """
    good: a storage daemon without disks, as far as it is asked. silent: accepts, and says nothing. babbling: greets, and goes on with
    noise. dropping: hangs up at once. halting: greets, and never answers.
    """

    def __init__(self, folder):
        self.folder = folder
        self.selector = selectors.DefaultSelector()
        self.listeners = {}  # name: (listener, kind)
        self.clients = {}  # name: connections
        self.lock = threading.Lock()
        self.wake, self.woken = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ, (None, None, None))
        self.closing = False
        self.random = random.Random(1)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def add(self, name, kind="good"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path(name))
        listener.listen(8)
        listener.setblocking(False)
        with self.lock:
            self.listeners[name] = listener, kind
            self.selector.register(listener, selectors.EVENT_READ, (name, kind, None))
        self.wake.send(b"x")

    def end(self, name, unlink=True):
        """As a machine that ends: hangs up, and removes its socket."""
        with self.lock:
            listener, _ = self.listeners.pop(name)
            self.selector.unregister(listener)
            if unlink:
                os.unlink(self.path(name))
            listener.close()
            for client in self.clients.pop(name, []):
                self.forget(client)

    def forget(self, client):
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(client)
        client.close()

    def close(self):
        for name in list(self.listeners):
            with contextlib.suppress(FileNotFoundError):
                self.end(name)
        self.closing = True
        self.wake.send(b"x")
        self.thread.join()
        self.selector.close()
        self.wake.close()
        self.woken.close()

    # --- the thread ---

    def serve(self):
        while not self.closing:
            for key, _ in self.selector.select():
                name, kind, rest = key.data
                if name is None:
                    key.fileobj.recv(4096)
                    continue
                with self.lock, contextlib.suppress(OSError, ValueError, KeyError):
                    if rest is None:
                        self.accept(key.fileobj, name, kind)
                    else:
                        self.talk(key.fileobj, name, kind, rest)

    def accept(self, listener, name, kind):
        client, _ = listener.accept()
        if kind == "dropping":
            client.close()
            return
        client.setblocking(False)
        self.clients.setdefault(name, []).append(client)
        self.selector.register(client, selectors.EVENT_READ, (name, kind, bytearray()))
        if kind != "silent":
            client.send(GREETING)
        if kind == "babbling":
            client.send(bytes(self.random.randrange(256) for _ in range(200)))

    def talk(self, client, name, kind, rest):
        data = client.recv(1 << 16)
        if not data:
            self.clients.get(name, []).remove(client)
            self.forget(client)
            return
        rest += data
        while b"\n" in rest:
            line, _, left = bytes(rest).partition(b"\n")
            rest[:] = left
            message = json.loads(line)
            if kind == "good" or message["execute"] == "qmp_capabilities" and kind != "silent":
                value = ANSWERS.get(message["execute"], [])
                answer = {"return": value} | ({"id": message["id"]} if "id" in message else {})
                client.send(json.dumps(answer).encode() + b"\r\n")
