"""A plain QMP client for the tests: what they see and do beside the daemon."""

import json
import select
import socket
import time


class QmpError(Exception):
    def __init__(self, error):
        super().__init__(f"{error.get('class')}: {error.get('desc')}")
        self.error = error


class Monitor:
    def __init__(self, path, timeout=20, **capabilities):
        self.timeout = timeout
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.rest = b""
        self.events = []
        self.greeting = self._message(time.monotonic() + timeout)
        assert "QMP" in self.greeting, self.greeting
        self("qmp_capabilities", **capabilities)

    def _message(self, deadline):
        while b"\n" not in self.rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("QEMU said nothing")
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("QEMU has gone")
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def send(self, command, **arguments):
        """Sends a command; _ in names of arguments stands for -."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def __call__(self, command, **arguments):
        assert command != "query-named-block-nodes", "crashes QEMU while a stream is concluded and not dismissed"
        self.send(command, **arguments)
        return self.answer()

    def answer(self):
        """To what was sent. Raises QmpError."""
        deadline = time.monotonic() + self.timeout
        while True:
            message = self._message(deadline)
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(message["error"])
            else:
                return message["return"]

    def wait_event(self, name, timeout=20, **data):
        """The first event of that name (and data) that has not been waited for; the ones before it stay in line."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.events:
                if event["event"] == name and all(event["data"].get(key) == value for key, value in data.items()):
                    self.events.remove(event)
                    return event
            message = self._message(deadline)
            assert "event" in message, message
            self.events.append(message)

    def jobs(self):
        """{id: what query-block-jobs tells}."""
        return {job["device"]: job for job in self("query-block-jobs")}

    def job(self):
        """The only job there is."""
        jobs = self("query-block-jobs")
        assert len(jobs) == 1, jobs
        return jobs[0]

    def close(self):
        self.socket.close()
