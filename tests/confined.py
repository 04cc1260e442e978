"""Runs a command under the system call filter of a unit: confined.py UNIT COMMAND...

What SystemCallFilter and MemoryDenyWriteExecute forbid is forbidden to the command as systemd would
forbid it, by the kernel. Needs systemd-analyze, which knows the groups (@system-service), and
Debian's python3-seccomp, so it runs with Debian's Python.

A program, started by tests/test_systemd.py.
"""

import errno
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import seccomp

WRITE_EXECUTE = mmap.PROT_WRITE | mmap.PROT_EXEC


def members(name: str) -> set[str]:
    """The system calls of a group, and of the groups in it."""
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout
    lines = [line.strip() for line in shown.splitlines()[1:]]
    names = [line for line in lines if line and not line.startswith("#")]
    return {call for name in names for call in (members(name) if name[0] == "@" else {name})}


def allowed(unit: str) -> set[str]:
    """What the lines of the unit leave, taken one after the other."""
    calls: set[str] = set()
    for forbids, names in re.findall(r"^SystemCallFilter=(~?)(.*)$", unit, re.MULTILINE):
        named = set().union(*(members(name) for name in names.split()))
        calls = calls - named if forbids else calls | named
    # systemd adds what a process needs to be started and to end.
    return calls | members("@default")


def load(unit: str) -> None:
    """Put the filters in force for this process and all that come of it."""
    assert "\nMemoryDenyWriteExecute=yes\n" in unit
    memory = seccomp.SyscallFilter(defaction=seccomp.ALLOW)
    both = seccomp.Arg(2, seccomp.MASKED_EQ, WRITE_EXECUTE, WRITE_EXECUTE)
    executable = seccomp.Arg(2, seccomp.MASKED_EQ, mmap.PROT_EXEC, mmap.PROT_EXEC)
    memory.add_rule(seccomp.ERRNO(errno.EPERM), "mmap", both)
    memory.add_rule(seccomp.ERRNO(errno.EPERM), "mprotect", executable)
    calls = seccomp.SyscallFilter(defaction=seccomp.ERRNO(errno.EPERM))
    for name in allowed(unit):
        try:
            calls.add_rule(seccomp.ALLOW, name)
        except RuntimeError:
            pass  # not on this kind of machine
    memory.load()
    calls.load()  # the last: it forbids to load another


if __name__ == "__main__":
    load(Path(sys.argv[1]).read_text("utf-8"))
    os.execvp(sys.argv[2], sys.argv[2:])
