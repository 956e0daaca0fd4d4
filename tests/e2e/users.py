"""Doing things as another user."""

import ctypes
import errno
import os
import pickle

import pytest

from system import IS_ROOT, NOBODY

USER, OTHER = NOBODY, 4242

needs_users = pytest.mark.skipif(not IS_ROOT, reason="needs root, to become somebody else")


def run_as(uid, function, *arguments, gid=None, groups=(), namespace=None):
    """
    What @function gives (or the exception it raises) in a child process of user @uid, who is in @groups too; with @namespace, lines of
    a uid_map, as root of a user namespace of that user's.
    """
    out, into = os.pipe()
    mapped, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(list(groups))
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(*[uid] * 3)
            if namespace:
                assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
                os.write(told[1], b"x")
                os.read(mapped[0], 1)
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            try:
                outcome = True, function(*arguments)
            except Exception as error:
                outcome = False, error
            with os.fdopen(into, "wb") as pipe:
                pickle.dump(outcome, pipe)
        finally:
            os._exit(0)
    os.close(into)
    if namespace:
        os.read(told[0], 1)
        for name in ("gid_map", "uid_map"):
            with open(f"/proc/{pid}/{name}", "w") as file:
                file.write(namespace)
        os.write(mapped[1], b"x")
    with os.fdopen(out, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    for fd in (*mapped, *told):
        os.close(fd)
    ended_well, value = pickle.loads(data)
    if not ended_well:
        raise value
    return value


def write(path, text):
    """One write(2) to a file that is opened for that."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(path):
    with open(path) as file:
        return file.read()


def errno_of(function, *arguments, **options):
    """The name of the error that it ends in; None if it ends well."""
    try:
        function(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def give(path, uid):
    """chown -R, as the program does it: a folder after what is in it."""
    for where, folders, files in os.walk(path, topdown=False):
        for name in files:
            os.chown(os.path.join(where, name), uid, uid)
        os.chown(where, uid, uid)
