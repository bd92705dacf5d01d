"""What a unit forbids, applied to a program without systemd: `python -m tests.systemd.sandbox UNIT PROGRAM ARGUMENT…`.

The system calls of `SystemCallFilter=`, the sockets of `RestrictAddressFamilies=`, `MemoryDenyWriteExecute=`,
`LimitCORE=` and `NoNewPrivileges=` become a seccomp filter and flags of this process, which then becomes the program.
What takes a file system or users of its own is not tried here.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SECCOMP_MODE_FILTER = 2
# BPF: load a word, keep some bits of it, jump if it is equal, end.
LOAD, AND, EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
NUMBER, FIRST_ARGUMENT, THIRD_ARGUMENT = 0, 16, 32  # offsets in struct seccomp_data
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
WRITABLE_CODE = mmap.PROT_WRITE | mmap.PROT_EXEC

Line = tuple[int, int, int, int]


def settings_of(unit: Path) -> dict[str, list[str]]:
    """The values of each setting, split into words."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).extend(value.split())
    return found


def calls_of(name: str) -> set[str]:
    """A group of system calls, and those that it includes."""
    if not name.startswith("@"):
        return {name}
    said = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    words = [line.strip() for line in said.stdout.splitlines()[1:]]
    return {call for word in words if word and not word.startswith("#") for call in calls_of(word)}


def allowed_calls(words: list[str]) -> set[str]:
    """As systemd reads the lines of `SystemCallFilter=`: an allow-list from which a `~` takes away."""
    allowed: set[str] = set(calls_of("@default"))
    taking = False
    for word in words:
        taking = taking or word.startswith("~")
        calls = calls_of(word.removeprefix("~"))
        allowed = allowed - calls if taking else allowed | calls
    return allowed


def numbers() -> dict[str, int]:
    """Every system call of this machine, by the C compiler's headers."""
    command = ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"^#define __NR_(\w+) (\d+)$", said, re.MULTILINE)}


def only_families(families: set[int]) -> list[Line]:
    """For socket(2): the first argument is one of these."""
    lines: list[Line] = [(LOAD, 0, 0, FIRST_ARGUMENT)]
    for family in sorted(families):
        lines += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    return [*lines, (RETURN, 0, 0, REFUSE | errno.EAFNOSUPPORT)]


def not_all_of(bits: int) -> list[Line]:
    """For mmap(2) and mprotect(2): the third argument does not hold all of these."""
    return [
        (LOAD, 0, 0, THIRD_ARGUMENT),
        (AND, 0, 0, bits),
        (EQUAL, 0, 1, bits),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]


def code_of(calls: dict[int, list[Line]]) -> bytes:
    """The filter: what is to be done by a call's number, and EPERM for every other."""
    lines: list[Line] = [(LOAD, 0, 0, NUMBER)]
    for number, then in sorted(calls.items()):
        lines += [(EQUAL, 0, len(then), number), *then]
    lines.append((RETURN, 0, 0, REFUSE | errno.EPERM))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def lock_up(unit: Path) -> None:
    """Apply what the unit forbids to this process, for good."""
    settings = settings_of(unit)
    assert settings["NoNewPrivileges"] == settings["MemoryDenyWriteExecute"] == ["yes"]
    known = numbers()
    allowed = {known[name] for name in allowed_calls(settings["SystemCallFilter"]) if name in known}
    calls: dict[int, list[Line]] = {number: [(RETURN, 0, 0, ALLOW)] for number in allowed}
    calls[known["socket"]] = only_families({int(getattr(socket, name)) for name in settings["RestrictAddressFamilies"]})
    calls[known["mmap"]] = not_all_of(WRITABLE_CODE)
    calls[known["mprotect"]] = not_all_of(mmap.PROT_EXEC)
    code = code_of(calls)
    buffer = ctypes.create_string_buffer(code)
    resource.setrlimit(resource.RLIMIT_CORE, (int(settings["LimitCORE"][0]),) * 2)
    control(PR_SET_NO_NEW_PRIVS, 1)
    control(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct.pack("HL", len(code) // 8, ctypes.addressof(buffer)))


def control(option: int, first: int, second: bytes | int = 0) -> None:
    """prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_char_p(second) if isinstance(second, bytes) else ctypes.c_ulong(second)
    if libc.prctl(option, ctypes.c_ulong(first), argument, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    lock_up(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
