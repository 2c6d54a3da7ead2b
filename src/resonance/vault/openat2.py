"""``openat2``: Linux resolves a path below a folder in one step, and refuses what leads out of it.

Python has no name for it. https://man7.org/linux/man-pages/man2/openat2.2.html
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable

# System calls this young have one number on all of these machines.
_NUMBER = 437
_MACHINES = frozenset(
    "x86_64 i386 i686 aarch64 armv7l armv8l ppc64 ppc64le s390x riscv64 loongarch64".split()
)

_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_HOW = struct.Struct("=QQQ")

# What a kernel, or a sandbox around it, answers that does not have the call.
_ABSENT = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EFAULT})

_syscall: Callable[..., int] | None = None


def open_beneath(folder: int, path: str, flags: int) -> int | None:
    """A descriptor of ``path`` below the descriptor ``folder``, without a symbolic link on the way.

    None if it cannot be had like this, for whatever reason: then go step by step, which says why.
    """
    call = _syscall
    if call is None:
        return None
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        return None
    how = _HOW.pack(flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    fd = call(_NUMBER, folder, name, how, _HOW.size)
    return fd if fd >= 0 else None


def _find() -> Callable[..., int] | None:
    """The system call, if this system has it."""
    if not sys.platform.startswith("linux") or platform.machine() not in _MACHINES:
        return None
    if platform.machine() == "x86_64" and ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    call.restype = ctypes.c_long
    call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    at_cwd = -100
    fd = call(_NUMBER, at_cwd, b".", _HOW.pack(os.O_RDONLY | os.O_CLOEXEC, 0, _BENEATH), _HOW.size)
    if fd < 0:
        return None if ctypes.get_errno() in _ABSENT else call
    os.close(fd)
    return call


_syscall = _find()
