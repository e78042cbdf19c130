"""The system calls that a program in the sandbox is refused, as the kernel's filter (seccomp) wants to read them."""

from __future__ import annotations

import errno
import struct

# Machine -> (the kernel's number of its calling convention, which of the two numbers below are its own).
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NONE = -1

# What no program needs that computes, and what reaches the kernel, other processes or memory that nobody counts.
_DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "socket": (41, 198),
    "setsockopt": (54, 208),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "inotify_init": (253, _NONE),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "vmsplice": (278, 75),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "personality": (135, 92),
    "modify_ldt": (154, _NONE),
    "iopl": (172, _NONE),
    "ioperm": (173, _NONE),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
}
_CLONE, _CLONE3, _SOCKETPAIR, _MMAP, _IOCTL = (56, 220), (435, 435), (53, 199), (9, 222), (16, 29)
_NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* flags
_UNIX, _STREAM = 1, 1  # a connected pair: its buffers are small, and go when both of its ends do
_SHARED_ANONYMOUS = 0x21  # MAP_SHARED, MAP_ANONYMOUS: pages that stay, and that no process owns
_TYPING = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: put input into a terminal


def rules(machine: str) -> bytes:
    """The filter as the kernel reads it (classic BPF over struct seccomp_data). A call that is denied fails (EPERM)."""
    architecture, column = MACHINES[machine]
    load, mask, jump_equal, jump_above, jump_any, give = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000
    refuse = 0x00050000 | errno.EPERM
    lines: list[tuple[int, int, int, int]] = []

    def say(code: int, value: int, yes: int = 0, no: int = 0) -> None:
        lines.append((code, yes, no, value))

    # Offsets of the call's number and the low halves of its arguments.
    number, first, second, fourth = 0, 16, 24, 40
    say(load, 4)
    say(jump_equal, architecture, 1, 0)
    say(give, kill)
    say(load, number)
    say(jump_above, 0x40000000, 0, 1)  # the x32 convention has its own numbers
    say(give, refuse)
    for numbers in _DENIED.values():
        if numbers[column] != _NONE:
            say(jump_equal, numbers[column], 0, 1)
            say(give, refuse)
    # clone3 keeps its flags in memory, where a filter cannot look: without it, libraries use clone.
    say(jump_equal, _CLONE3[column], 0, 1)
    say(give, 0x00050000 | errno.ENOSYS)
    say(jump_equal, _CLONE[column], 0, 4)
    say(load, first)
    say(jump_any, _NEW_NAMESPACES, 0, 1)
    say(give, refuse)
    say(give, allow)
    say(jump_equal, _SOCKETPAIR[column], 0, 7)
    say(load, first)
    say(jump_equal, _UNIX, 0, 3)
    say(load, second)
    say(mask, 0xF)  # without the flags that go with the type
    say(jump_equal, _STREAM, 1, 0)
    say(give, refuse)
    say(give, allow)
    say(jump_equal, _MMAP[column], 0, 5)
    say(load, fourth)
    say(mask, _SHARED_ANONYMOUS)
    say(jump_equal, _SHARED_ANONYMOUS, 0, 1)
    say(give, refuse)
    say(give, allow)
    say(jump_equal, _IOCTL[column], 0, 3 + len(_TYPING))
    say(load, second)
    for left in range(len(_TYPING), 0, -1):
        say(jump_equal, _TYPING[-left], left, 0)
    say(give, allow)
    say(give, refuse)
    say(give, allow)
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
