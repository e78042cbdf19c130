"""Running programs that nobody trusts: Python and shell in bubblewrap, with limits on all that they could take.

    result = await Sandbox().python("print(6 * 7)")
    result.stdout, result.exit, result.cause        "42\\n", 0, Cause.EXITED

A program gets: a process namespace of its own (no other process is seen or signalled), no network and no sockets but
connected pairs, a read-only system without /home, /root, /sys and most of /etc, a private /tmp in memory, an empty
environment, no privileges, and a system-call filter. It cannot write anywhere outside /tmp and /dev/shm, and all of it
dies with the first process. Memory that processes share lies in /dev/shm: without a file (MAP_SHARED | MAP_ANONYMOUS,
/dev/zero) nobody could count it, so that is refused.

Three layers keep the limits: the kernel's own, per process (address space, processor seconds, open files, file size,
number of processes); the size of the memory file systems; and a watch from outside over the whole tree of processes,
every `WATCH` seconds (processor seconds, memory, processes, files, wall clock). Shared pages count once for every
process that maps them. The watch is a part of the event loop: while the loop is blocked, the first two layers hold.
What slips through: the processor time of children that end between two looks, where their parent ignores SIGCHLD; and
memory that the kernel holds for a program (page tables, locks, and some hundred KB in each open pipe or socket).

There is no way to run without protection: where bubblewrap cannot work, `require` says what to install or to allow.
Started by root, a program runs as an unprivileged user number of its own; started by anybody else, in a user
namespace. x86-64 and aarch64 Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import math
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ludus.envs.tools import seccomp
from ludus.types import Explained

WATCH = 0.02  # seconds between two looks at the tree; between them a program can take a few dozen MB too much


class Cause(enum.StrEnum):
    """What ended a program. EXITED: it ended itself; an exit above 128 is then 128 and the signal's number."""

    EXITED = "exited"
    CPU = "processor seconds"
    WALL = "wall clock"
    MEMORY = "memory"
    PROCESSES = "processes"
    FILES = "number of files"
    OUTPUT = "output"


@dataclass(frozen=True)
class Limits:
    """What one run may take, all its processes together where nothing else is said.

    cpu, wall   seconds; `cpu` is of all processes, `wall` is measured from before the start
    memory      bytes that all processes hold, and the address space of each one
    processes   at once, threads included. More are refused (EAGAIN); before Linux 5.14, by ending the run
    open_files  of each process
    file_size   bytes of one file
    disk        bytes in /tmp, and as many in /dev/shm; they are held in memory
    files       files and directories in /tmp and /dev/shm
    output      bytes of standard output, and as many of standard error
    """

    cpu: float = 5.0
    wall: float = 10.0
    memory: int = 512 << 20
    processes: int = 16
    open_files: int = 64
    file_size: int = 16 << 20
    disk: int = 32 << 20
    files: int = 5_000
    output: int = 64 << 10

    def __post_init__(self) -> None:
        if min(vars(self).values()) <= 0:
            raise ValueError(f"{self}; every limit is above 0")


@dataclass(frozen=True)
class Result:
    """`exit` is what the program chose, and means nothing where `cause` is not EXITED."""

    stdout: str
    stderr: str
    exit: int
    cause: Cause

    @property
    def ok(self) -> bool:
        return self.cause is Cause.EXITED and self.exit == 0

    @property
    def text(self) -> str:
        """For the one who wrote the program: what it said, and how it ended unless it ended well."""
        ended = "" if self.ok else f"[exit {self.exit}]"
        if self.cause is not Cause.EXITED:
            ended = f"[ended: limit of {self.cause}]"
        said = [part.rstrip("\n") for part in (self.stdout, self.stderr, ended)]
        return "\n".join(part for part in said if part) or "[no output]"


@dataclass(frozen=True)
class Graded:
    """`verdict` is pass or fail; None where the grader itself broke, so that nothing may be scored."""

    verdict: str | None
    solution: Result
    grader: Result


class SandboxMissing(Explained):
    """Programs cannot be run safely on this machine; nothing was run."""


@functools.cache
def require() -> str:
    """The path of bubblewrap, after a trial run; SandboxMissing where it cannot protect."""
    bwrap = shutil.which("bwrap")
    if not sys.platform.startswith("linux") or platform.machine() not in seccomp.MACHINES:
        raise SandboxMissing(
            f"programs run in bubblewrap, on Linux on {' or '.join(seccomp.MACHINES)}; "
            f"this is {sys.platform} on {platform.machine()}"
        )
    if bwrap is None:
        raise SandboxMissing(
            "programs run in bubblewrap, and `bwrap` is not on the PATH; "
            "install it: apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora)"
        )
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        raise SandboxMissing(
            "the kernel does not list the children of a process, so nobody could watch them; "
            "it wants CONFIG_PROC_CHILDREN, and /proc of the whole machine"
        )
    with _filter() as fd:
        trial = subprocess.run(
            [bwrap, *_walls(Limits(), (), fd), *_locks(Limits()), "/usr/bin/true"],
            pass_fds=[fd],
            capture_output=True,
            text=True,
            env={"PATH": _PATH},
        )
    if trial.returncode:
        raise SandboxMissing(
            f"bubblewrap cannot build its namespaces here: {trial.stderr.strip()}\n"
            "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container, run it with "
            "--security-opt seccomp=unconfined --cap-add SYS_ADMIN"
        )
    return bwrap


# ---------------------------------------------------------------------------------------------- running


@dataclass(frozen=True)
class Sandbox:
    """Runs programs, as many at once as are awaited at once.

    python    the interpreter; its folder is readable in the sandbox, and its packages are those installed there
    readable  more paths of this machine that programs may read
    """

    limits: Limits = field(default_factory=Limits)
    python_path: Path = Path(sys.base_prefix) / "bin" / "python3"
    readable: tuple[Path, ...] = ()

    async def python(
        self, source: str, stdin: str = "", files: Mapping[str, bytes] | None = None
    ) -> Result:
        """Run Python source, isolated from the environment and from user packages."""
        return await self.run([*self._interpreter, "/program"], source, stdin, files)

    async def shell(
        self, script: str, stdin: str = "", files: Mapping[str, bytes] | None = None
    ) -> Result:
        return await self.run(["/bin/sh", "/program"], script, stdin, files)

    async def run(
        self,
        command: Sequence[str],
        program: str = "",
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
    ) -> Result:
        """Run a command in /tmp. `program` is readable as /program; `files` lie in /tmp and may be written."""
        pipe, started = asyncio.subprocess.PIPE, time.monotonic()
        process = await self._start(command, program, files or {}, pipe, pipe)
        return await _watched(process, self.limits, started, _bytes(stdin))

    async def grade(self, solution: str, grader: str) -> Graded:
        """Run a grader on a solution, two Python programs in two sandboxes with only two pipes between them.

        The grader calls a function of the solution by name, `call("add", 1, 2)`; arguments and answers are JSON, so
        what comes back is data and compares as data. If it runs to its end the verdict is pass; if an assertion fails,
        or the solution raises, ends or sends something else than an answer, fail. So it is if the grader raises
        anything else after an answer, since an answer of a wrong type does that; before the first one, there is no
        verdict. It leaves by a descriptor that exists in the grader's sandbox only.

            assert call("add", 1, 2) == 3
        """
        asked, ask = os.pipe()
        answered, answer = os.pipe()
        told, tell = os.pipe()
        os.set_blocking(told, False)
        ends = [asked, ask, answered, answer, tell]
        try:
            serving = await self._start(
                [*self._interpreter, "-c", _SERVE], solution, {}, asked, answer
            )
            try:
                prelude = f"ASK, ANSWERED, TELL = {ask}, {answered}, {tell}\n{_JUDGE}"
                judging = await self._start(
                    [*self._interpreter, "-c", prelude],
                    grader,
                    {},
                    asyncio.subprocess.DEVNULL,
                    asyncio.subprocess.PIPE,
                    (ask, answered, tell),
                )
            except BaseException:
                _end(serving)
                raise
            while ends:  # ours must be closed, or neither side would see the other one end
                os.close(ends.pop())
            now = time.monotonic()
            longer = replace(self.limits, wall=2 * self.limits.wall)  # to say what the end meant
            of_solution, of_grader = await asyncio.gather(
                _watched(serving, self.limits, now), _watched(judging, longer, now)
            )
            try:
                said = os.read(told, 16).decode()
            except BlockingIOError:
                said = ""
        finally:
            for end in (*ends, told):
                os.close(end)
        return Graded(said if said in ("pass", "fail") else None, of_solution, of_grader)

    @property
    def _interpreter(self) -> list[str]:
        return [str(self.python_path), "-I", "-B", "-X", "utf8"]

    async def _start(
        self,
        command: Sequence[str],
        program: str,
        files: Mapping[str, bytes],
        stdin: int,
        stdout: int,
        passed: tuple[int, ...] = (),
    ) -> asyncio.subprocess.Process:
        bwrap = require()
        readable = (self.python_path.resolve().parents[1], *self.readable)
        with contextlib.ExitStack() as stack:
            rules = stack.enter_context(_filter())
            source = stack.enter_context(_in_memory(_bytes(program)))
            placed = {_name(name): stack.enter_context(_in_memory(files[name])) for name in files}
            data = ["--perms", "0444", "--ro-bind-data", str(source), "/program"]
            for name, fd in placed.items():
                data += ["--perms", "0666", "--file", str(fd), f"/tmp/{name}"]
            return await asyncio.create_subprocess_exec(
                bwrap,
                *_walls(self.limits, readable, rules, data),
                *_locks(self.limits),
                *command,
                stdin=stdin,
                stdout=stdout,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(rules, source, *placed.values(), *passed),
                env={"PATH": _PATH},  # bubblewrap's own can be read in its /proc
            )


@contextlib.contextmanager
def _filter() -> Iterator[int]:
    with _in_memory(seccomp.rules(platform.machine())) as fd:
        yield fd


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # a lone surrogate, which a model may write, becomes "?"


def _name(name: str) -> str:
    if not name or "/" in name or name in (".", "..") or "\0" in name:
        raise ValueError(f"files: {name!r} is no name of a file in /tmp; give one without a slash")
    return name


# ---------------------------------------------------------------------------------------------- the watch


@dataclass(frozen=True)
class _Usage:
    processes: int
    cpu: float
    memory: int
    files: int

    def beyond(self, limits: Limits) -> Cause | None:
        if self.memory > limits.memory:
            return Cause.MEMORY
        if self.cpu > limits.cpu:
            return Cause.CPU
        if self.processes > limits.processes:
            return Cause.PROCESSES
        return Cause.FILES if self.files > limits.files else None


async def _watched(
    process: asyncio.subprocess.Process, limits: Limits, started: float, stdin: bytes = b""
) -> Result:
    """Wait for the end of a run, or make it."""
    flooded = asyncio.Event()
    streams = [
        asyncio.create_task(_drain(stream, limits.output, flooded))
        for stream in (process.stdout, process.stderr)
    ]
    feeding = asyncio.create_task(_feed(process, stdin))
    ended = asyncio.create_task(process.wait())
    cause, own = Cause.EXITED, _Own()
    looked, cpu = started, 0.0
    try:
        while not (await asyncio.wait({ended}, timeout=WATCH))[0]:
            usage = _usage(process.pid, own)
            looked, cpu = time.monotonic(), usage.cpu
            late = Cause.WALL if looked - started > limits.wall else None
            over = Cause.OUTPUT if flooded.is_set() else usage.beyond(limits) or late
            if over:
                cause = over
                break
    finally:
        if process.returncode is None:
            _end(process)
        await ended
        cores = min(os.cpu_count() or 1, limits.processes)
        unseen = (time.monotonic() - looked) * cores
        out, err = await asyncio.gather(*streams)
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    code = process.returncode or 0
    if cause is Cause.EXITED and flooded.is_set():
        cause = Cause.OUTPUT  # it ended between two looks
    spent = cpu + unseen > math.ceil(limits.cpu)  # or else the program chose that code itself
    if cause is Cause.EXITED and code == 128 + signal.SIGXCPU and spent:
        cause = Cause.CPU  # the kernel's own limit was first
    return Result(out.decode("utf-8", "replace"), err.decode("utf-8", "replace"), code, cause)


def _end(process: asyncio.subprocess.Process) -> None:
    """Kill bubblewrap and the namespace's first process, with which the kernel kills all others in it.

    That one dies with bubblewrap in any case, but for the moment between its birth and its asking for that.
    """
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGSTOP)  # no more births
        for pid in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()


async def _drain(stream: asyncio.StreamReader | None, most: int, flooded: asyncio.Event) -> bytes:
    kept = b""
    while stream is not None and (piece := await stream.read(1 << 16)):
        if len(kept) + len(piece) > most:
            flooded.set()
        kept = (kept + piece)[:most]
    return kept


async def _feed(process: asyncio.subprocess.Process, stdin: bytes) -> None:
    if process.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read
        process.stdin.write(stdin)
        await process.stdin.drain()
        process.stdin.close()


_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


_Own = dict[tuple[int, int], int]
"""Process (its number, and when it started) -> the ticks that it was last seen to have used itself."""


def _usage(outer: int, own: _Own) -> _Usage:
    """What the tree below bubblewrap holds. What has ended counts by the times that its parent collected, or, where
    none did, by those that it was last seen with."""
    first = next(iter(_children(outer)), None)
    if first is None:
        return _Usage(0, 0.0, 0, 0)
    processes, ticks, pages = -1, 0, 0  # the namespace's first process is bubblewrap's
    pending = [first]
    while pending:
        pid = pending.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2]
        except OSError:
            continue  # it has just ended
        values = fields.split()  # utime is field 14 of proc(5), and the first one here is field 3
        ticks += sum(map(int, values[11:15]))
        own[pid, int(values[19])] = sum(map(int, values[11:13]))
        processes += int(values[17])
        pages += int(values[21])
        pending += _children(pid)
    files = sum(_files(f"/proc/{first}/root", place) for place in _WRITABLE)
    return _Usage(processes, max(ticks, sum(own.values())) / _TICK, pages * _PAGE, files)


def _files(root: str, place: str) -> int:
    """How many files a folder in memory holds; 0 where it is still this machine's, at the very start, or gone."""
    try:
        if os.path.exists(place) and os.stat(root + place).st_dev == os.stat(place).st_dev:
            return 0
        counts = os.statvfs(root + place)
    except OSError:
        return 0
    return counts.f_files - counts.f_ffree


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


# ---------------------------------------------------------------------------------------------- the walls

_PATH = "/usr/local/bin:/usr/bin:/bin"
_WRITABLE = ("/tmp", "/dev/shm")
_DEVICES = ("null", "full", "random", "urandom")  # not zero, which gives shared memory
_LINKS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}


def _walls(
    limits: Limits, readable: Sequence[Path], rules: int, data: Sequence[str] = ()
) -> list[str]:
    """Bubblewrap's arguments. Everything that is not named here does not exist inside."""
    walls = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    walls += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
    walls += ["--cap-drop", "ALL", "--hostname", "sandbox", "--seccomp", str(rules)]
    if os.geteuid() == 0:  # to become nobody inside, by setpriv
        walls += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        walls += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for name, value in {"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8"}.items():
        walls += ["--setenv", name, value]
    walls += ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(name):
            walls += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            walls += ["--ro-bind", name, name]
    walls += ["--dir", "/etc", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    walls += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    made: set[Path] = set()
    for path in readable:
        if not path.is_relative_to("/usr"):
            for parent in reversed(path.parents[:-1]):  # else they would be closed to nobody
                walls += [] if parent in made else ["--dir", str(parent)]
                made.add(parent)
            walls += ["--ro-bind", str(path), str(path)]
    walls += ["--proc", "/proc", "--tmpfs", "/dev"]
    for name in _DEVICES:
        walls += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in _LINKS.items():
        walls += ["--symlink", f"/proc/self/{target}", f"/dev/{name}"]
    for place in _WRITABLE:
        walls += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", place]
    walls += [*data, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--"]
    return walls


def _locks(limits: Limits) -> list[str]:
    """What a program is started by, inside: it gives up its user where that is root, and sets the kernel's limits."""
    locks: list[str] = []
    if os.geteuid() == 0:
        # A number that no other run has, because processes are counted for each user.
        nobody = str(2**30 + secrets.randbelow(2**30))
        locks += ["/usr/bin/setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups"]
        locks += ["--inh-caps=-all", "--no-new-privs"]
    kernel = {
        "as": limits.memory,
        "nproc": limits.processes,
        "nofile": limits.open_files,
        "fsize": limits.file_size,
        "core": 0,
        "memlock": 64 << 10,
        "msgqueue": 0,
        "sigpending": 1024,
        "nice": 0,
        "rtprio": 0,
        "stack": 8 << 20,
    }
    locks += ["/usr/bin/prlimit", *(f"--{name}={value}:{value}" for name, value in kernel.items())]
    seconds = (
        math.ceil(limits.cpu) + 1
    )  # of one process: a signal that tells the cause, then the end
    locks += [f"--cpu={seconds}:{seconds + 1}"]
    return [*locks, "--"]


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """A descriptor of a file without a name, at its start."""
    fd = os.memfd_create("ludus")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


# ---------------------------------------------------------------------------------------------- the grader's pipes

LONGEST_ANSWER = 1 << 20  # bytes; a solution that sends a longer one has failed

# In the solution's sandbox: what it prints goes to its standard error, and its answers to the pipe.
_SERVE = """
import json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
names = {"__name__": "solution"}
exec(compile(open("/program").read(), "solution", "exec"), names)
for line in sys.stdin:
    asked = json.loads(line)
    try:
        answer = {"value": names[asked["name"]](*asked["args"])}
        text = json.dumps(answer)
    except BaseException as error:
        text = json.dumps({"error": f"{type(error).__name__}: {error}"})
    print(text, file=out, flush=True)
"""

# In the grader's: `call` and `Failed` are all that a grader has beyond Python.
_JUDGE = f"""
import json, os, traceback
asking, answers = os.fdopen(ASK, "w"), os.fdopen(ANSWERED, "rb")
heard = False
class Failed(AssertionError): pass
def call(name, *args):
    global heard
    text = json.dumps({{"name": name, "args": args}})
    try:
        print(text, file=asking, flush=True)
        answer = json.loads(answers.readline({LONGEST_ANSWER}))
    except (OSError, ValueError, RecursionError) as error:
        raise Failed("the solution ended or sent no answer") from error
    if not isinstance(answer, dict) or "value" not in answer:
        raise Failed(str(answer)[:1000])
    heard = True
    return answer["value"]
try:
    exec(compile(open("/program").read(), "grader", "exec"), {{"call": call, "Failed": Failed}})
    verdict = b"pass"
except AssertionError as error:
    print(type(error).__name__, error)
    verdict = b"fail"
except Exception:
    if not heard:
        raise
    traceback.print_exc()
    verdict = b"fail"
os.write(TELL, verdict)
os._exit(0)
"""
