"""Hostile programs in the sandbox: none gets out, each ends with its cause, and none harms a neighbour.

A program prints ESCAPED where something succeeded that must not. All of them run `AT_ONCE` at a time with one honest
neighbour after the other beside them: a neighbour alone takes about 0.2 s, and with `FACTOR` times that it must come
to its right end.
"""
# ruff: noqa: E501  the programs are a table, one a row where that can be

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ludus.envs.tools import sandbox
from ludus.envs.tools.sandbox import Cause, Graded, Limits, Result, Sandbox, SandboxMissing, require

try:
    require()
except SandboxMissing as missing:
    pytest.skip(str(missing), allow_module_level=True)

LIMITS = Limits(
    cpu=0.5,
    wall=12,
    memory=192 << 20,
    processes=12,
    open_files=32,
    file_size=1 << 20,
    disk=4 << 20,
    files=300,
    output=10_000,
)
AT_ONCE = 3
FACTOR = 30
MARK = f"hostile-{os.getpid()}"
SECRET = "correct horse battery staple"


@dataclass(frozen=True)
class Hostile:
    """`says` must be in what the program printed; `wall` shortens the clock of one that only waits."""

    name: str
    source: str
    cause: Cause = Cause.EXITED
    says: str = ""
    shell: bool = False
    wall: float = LIMITS.wall


# Every Python program begins with this.
PRELUDE = """
import ctypes, os, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def denied(call, *args):
    "A call of the C library that must fail."
    print("ESCAPED" if call(*args) >= 0 else "denied")

def fails(what, *args, **named):
    "A call of Python that must raise."
    try:
        what(*args, **named)
    except (OSError, MemoryError, ValueError) as error:
        print("fails", type(error).__name__, error)
    else:
        print("ESCAPED")
"""
CPU, WALL, OUTPUT = Cause.CPU, Cause.WALL, Cause.OUTPUT

PROGRAMS = [
    # ---- processes
    Hostile(
        "fork bomb", "while True:\n  try: os.fork()\n  except OSError: pass", CPU
    ),
    Hostile("shell fork bomb", "b() { b | b & }; b; while true; do :; done", CPU, shell=True),
    Hostile(
        "thread bomb",
        "try:\n  while True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
        "except RuntimeError: print('no more', threading.active_count() < 13, flush=True); os._exit(0)",
        says="no more True",
    ),
    Hostile(
        "children whose times nobody collects",
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "while True:\n"
        "  pid = os.fork()\n"
        "  while pid == 0 and time.process_time() < 0.2: pass\n"
        "  if pid == 0: os._exit(0)\n"
        "  try: os.wait()\n"
        "  except ChildProcessError: pass",
        CPU,
    ),
    Hostile("asynchronous input", "denied(libc.syscall, 206 if os.uname().machine == 'x86_64' else 0, 100, ctypes.byref(ctypes.c_ulong(0)))", says="denied"),
    Hostile("processor by children", "[os.fork() for _ in range(3)]\nwhile True: pass", CPU),
    Hostile("busy loop", "while True: pass", CPU),
    Hostile(
        "busy loop that catches signals",
        "for n in set(signal.Signals) - {9, 19}: signal.signal(n, signal.SIG_IGN)\n"
        "while True: pass",
        CPU,
    ),
    Hostile("sleeps for ever", "time.sleep(10**6)", WALL, wall=1.5),
    Hostile("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)", WALL, wall=1.5),
    Hostile("reads what never comes", "r, w = os.pipe(); os.read(r, 1)", WALL, wall=1.5),
    Hostile(
        "daemon by a double fork",
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(10**6)\n  os._exit(0)\n"
        "print('left')",
        says="left",
    ),
    Hostile("nohup", "nohup setsid sleep 31337 >/dev/null 2>&1 & echo left", says="left", shell=True),
    Hostile("kills its parent", "os.kill(os.getppid(), 9)\nprint('alive')"),
    Hostile("kills everybody", "os.kill(-1, 9)\nprint('alive')"),
    Hostile(
        "kills by number",
        "for pid in range(3, 5000):\n"
        "  if pid != os.getpid():\n"
        "    try: os.kill(pid, 9); print('ESCAPED')\n"
        "    except OSError: pass\n"
        "print('nobody')",
        says="nobody",
    ),
    Hostile("stops its group", "os.killpg(0, signal.SIGSTOP)", WALL, wall=1.5),
    Hostile("priority", "fails(os.setpriority, os.PRIO_PROCESS, 0, -20)", says="fails"),
    Hostile(
        "real time",
        "fails(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))",
        says="fails",
    ),
    Hostile("huge argv", "fails(subprocess.run, ['/bin/true'] + ['x' * 1000] * 10**4)", says="fails"),
    Hostile(
        "raises its own limits",
        "import resource\n"
        "for name in dir(resource):\n"
        "  if name.startswith('RLIMIT_'):\n"
        "    hard = resource.getrlimit(getattr(resource, name))[1]\n"
        "    if hard >= 0: fails(resource.setrlimit, getattr(resource, name), (hard + 1, hard + 1))",
        says="fails",
    ),
    # ---- memory
    Hostile("memory bomb", "x = []\nwhile True: x.append(bytearray(1 << 22))", says="MemoryError"),
    Hostile(
        "memory by children",
        "for _ in range(8):\n"
        "  if os.fork() == 0:\n    x = bytearray(os.urandom(1 << 20) * 80)\n    time.sleep(60)\n"
        "time.sleep(60)",
        Cause.MEMORY,
    ),
    Hostile("huge integer", "print(len(str(7 ** (10 ** 9))))", CPU),
    Hostile("huge string", "'x' * 10**12", says="MemoryError"),
    Hostile(
        "zip bomb",
        "import io, zipfile\nb = io.BytesIO()\n"
        "with zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z:\n"
        "  for n in range(20): z.writestr(str(n), bytes(1 << 20))\n"
        "zipfile.ZipFile(b).extractall('/tmp')",
        says="OSError",
    ),
    Hostile("system V memory", "denied(libc.shmget, 0, 1 << 28, 0o1600)", says="denied"),
    Hostile("system V semaphores", "denied(libc.semget, 0, 1000, 0o1600)", says="denied"),
    Hostile("nameless files", "fails(os.memfd_create, 'x')", says="fails"),
    Hostile(
        "shared memory",
        "with open('/dev/shm/x', 'wb') as f: f.write(bytes(1 << 19))\n"
        "fails(lambda: [open(f'/dev/shm/{n}', 'wb').write(bytes(1 << 20)) for n in range(9)])",
        says="fails",
    ),
    Hostile(
        "shared memory without a file",
        "import mmap\nfails(mmap.mmap, -1, 1 << 20)\nfails(os.open, '/dev/zero', os.O_RDWR)\n"
        "libc.mmap.restype = ctypes.c_long\ndenied(libc.mmap, None, 1 << 20, 3, 0x8000 | 0x21, -1, 0)",
        says="denied",
    ),
    Hostile("memory in buffers of TCP", "fails(socket.create_server, ('127.0.0.1', 0))\nfails(socket.socket, socket.AF_INET6)", says="fails"),
    Hostile(
        "memory in buffers of local sockets",
        "fails(socket.socket, socket.AF_UNIX)\n"
        "fails(socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "fails(socket.socketpair()[0].setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)",
        says="fails",
    ),
    Hostile("locked memory", "denied(libc.mlockall, 3)", says="denied"),
    Hostile(
        "infinite recursion",
        "f = lambda n: f(n + 1)\nf(0)", says="RecursionError",
    ),
    Hostile("nested brackets", "try: eval('(' * 10**5)\nexcept (SyntaxError, MemoryError) as error: print(type(error))", says="Error"),
    Hostile("regex bomb", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')", CPU),
    Hostile("unicode bomb", "print('\\u0301' * 10**6)", OUTPUT),
    Hostile("lone surrogates", "sys.stdout.buffer.write(b'\\xff\\xed\\xa0\\x80ok')", says="ok"),
    # ---- output
    Hostile("endless output", "while True: print('x' * 1000)", OUTPUT),
    Hostile("endless errors", "while True: print('x' * 1000, file=sys.stderr)", OUTPUT),
    Hostile("yes", "yes", OUTPUT, shell=True),
    Hostile(
        "output after close", "print('first', flush=True); os.close(1); print('second')", says="first"
    ),
    Hostile("closes everything", "os.closerange(0, 1000); time.sleep(10**6)", WALL, wall=1.5),
    Hostile(
        "says more at its end",
        "import atexit\natexit.register(lambda: [print('x' * 100) for _ in range(10**4)])",
        OUTPUT,
    ),
    Hostile("never ends its end", "import atexit\natexit.register(lambda: time.sleep(999))", WALL, wall=1.5),
    # ---- files
    Hostile("writes to /usr", "fails(open, '/usr/bin/ls', 'r+b')\nfails(open, '/usr/x', 'w')", says="fails"),
    Hostile("writes to the root", "fails(open, '/x', 'w')\nfails(open, '/dev/x', 'w')", says="fails"),
    Hostile("deletes all", "rm -rf /usr/bin /usr/lib/os-release /program /proc/1 2>/dev/null; ls /usr/bin/env", says="/usr/bin/env", shell=True),
    Hostile("changes its program", "fails(open, '/program', 'a')", says="fails"),
    Hostile("reads passwords", f"fails(open, '/etc/shadow')\nfails(open, {str(Path(__file__).resolve())!r})", says="fails"),
    Hostile("looks for homes", "print(os.path.exists('/home'), os.path.exists('/work'), os.path.exists('/sys'))", says="False False False"),
    Hostile("fills the disk", "fails(lambda: [open(str(n), 'wb').write(bytes(1 << 20)) for n in range(9)])", says="No space"),
    Hostile("one large file", "f = open('x', 'wb', 0)\nfails(lambda: [f.write(bytes(1 << 18)) for _ in range(9)])", says="too large"),
    Hostile("sparse file", "open('x', 'w').close()\nfails(os.truncate, 'x', 1 << 40)", says="too large"),
    Hostile("a million files", "n = 0\nwhile True: open(str(n), 'w').close(); n += 1", Cause.FILES),
    Hostile("deep directories", "while True: os.mkdir('d'); os.chdir('d')", Cause.FILES),
    Hostile("a million files in shared memory", "n = 0\nwhile True: os.mknod(f'/dev/shm/{n}'); n += 1", Cause.FILES),
    Hostile("long name", "fails(open, 'n' * 300, 'w')", says="too long"),
    Hostile("open files", "x = []\nfails(lambda: [x.append(os.open('/dev/null', 0)) for _ in range(99)])", says="Too many"),
    Hostile("symbolic links out", "os.symlink('/etc/shadow', 's'); fails(open, 's')\nos.symlink('../../../../OUTSIDE', 't'); fails(open, 't')", says="fails"),
    Hostile("hard links out", "fails(os.link, '/usr/bin/ls', '/tmp/ls')", says="fails"),
    Hostile("the file outside", "fails(open, 'OUTSIDE')\nfails(os.remove, 'OUTSIDE')", says="fails"),
    Hostile("device files", "fails(os.mknod, '/tmp/sda', 0o60666, os.makedev(254, 0))", says="fails"),
    Hostile("devices of the machine", "fails(open, '/dev/mem'); fails(open, '/dev/sda'); fails(open, '/dev/vda'); fails(open, '/dev/kmsg')", says="fails"),
    Hostile("core dump", "os.abort()", says=""),
    Hostile("device of its terminal", "fails(open, '/dev/tty')", says="fails"),
    # ---- /proc and the environment
    Hostile("other processes", "print(sum(name.isdigit() for name in os.listdir('/proc')) <= 4)", says="True"),
    Hostile("environment", "print(sorted(os.environ))\nprint(subprocess.run('cat /proc/*/environ', shell=True, capture_output=True).stdout)"),
    Hostile("root of the first process", "fails(os.listdir, '/proc/1/root' + '/home')\nfails(open, '/proc/1/cwd/OUTSIDE')", says="fails"),
    Hostile("kernel settings", "fails(open, '/proc/sys/kernel/core_pattern', 'w')\nfails(open, '/proc/sysrq-trigger', 'w')", says="fails"),
    Hostile("kernel memory", "fails(open, '/proc/kcore', 'rb')", says="fails"),
    Hostile("out of memory score", "fails(open('/proc/self/oom_score_adj', 'wb', 0).write, b'-1000')", says="fails"),
    Hostile("maps itself to root", "fails(lambda: open('/proc/self/uid_map', 'wb', 0).write(b'0 0 1'))", says="fails"),
    # ---- privileges and the kernel
    Hostile("becomes root", "fails(os.setuid, 0)\nfails(os.setgroups, [0])\nfails(os.chroot, '/tmp')", says="fails"),
    Hostile("set-user programs", "su -c id root || sudo -n id || echo still $(id -u)", says="still", shell=True),
    Hostile("owner of a set-user file", "import shutil\nshutil.copy('/usr/bin/id', 'id'); os.chmod('id', 0o4755)\nprint(subprocess.run(['./id', '-u'], capture_output=True, text=True).stdout.strip() == str(os.getuid()))", says="True"),
    Hostile("mounts", "denied(libc.mount, b'none', b'/tmp', b'tmpfs', 0, None)\ndenied(libc.umount2, b'/proc', 2)", says="denied"),
    Hostile("unshare", "denied(libc.unshare, 0x10000000)\ndenied(libc.unshare, 0x00020000)", says="denied"),
    Hostile("unshare, the program", "unshare -Ur id && echo ESCAPED; echo stayed", says="stayed", shell=True),
    Hostile("clone into a new user", "denied(libc.syscall, 56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0)", says="denied"),
    Hostile("enters a namespace", "denied(libc.setns, os.open('/proc/self/ns/mnt', 0), 0)", says="denied"),
    Hostile("ptrace", "denied(libc.ptrace, 16, os.getppid(), 0, 0)", says="denied"),
    Hostile("memory of its parent", "buffer = ctypes.create_string_buffer(8)\ndenied(libc.process_vm_readv, os.getppid(), buffer, 1, buffer, 1, 0)", says="denied"),
    Hostile("keyrings", "denied(libc.syscall, 250 if os.uname().machine == 'x86_64' else 219, 0, -3, 1)", says="denied"),
    Hostile("bpf", "denied(libc.syscall, 321 if os.uname().machine == 'x86_64' else 280, 0, 0, 0)", says="denied"),
    Hostile("io_uring", "denied(libc.syscall, 425, 8, ctypes.create_string_buffer(120))", says="denied"),
    Hostile("the clock", "fails(time.clock_settime, time.CLOCK_REALTIME, 0)", says="fails"),
    Hostile("no time to lose", "time.time = time.monotonic = lambda: 0\nwhile True: pass", CPU),
    Hostile("inotify flood", "denied(libc.inotify_init)", says="denied"),
    Hostile("the name of the machine", "fails(socket.sethostname, 'mine')\nprint(socket.gethostname())", says="sandbox"),
    Hostile("restart", "denied(libc.reboot, 0)", says="denied"),
    # ---- network
    Hostile("reaches the host", "fails(socket.create_connection, ('127.0.0.1', PORT), 1)", says="fails"),
    Hostile("reaches the world", "fails(socket.create_connection, ('1.1.1.1', 53), 1)\nfails(socket.getaddrinfo, 'example.org', 80)", says="fails"),
    Hostile("raw sockets", "fails(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)\nfails(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)", says="fails"),
    Hostile("sockets past the namespace", "fails(socket.socket, 40, socket.SOCK_STREAM)\nfails(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)", says="fails"),
    Hostile("abstract sockets of the host", "def call():\n  with socket.socket(socket.AF_UNIX) as s: s.connect('\\0ludus-MARK')\nfails(call)", says="fails"),
    # ---- Python's own doors
    Hostile("forged module", "open('json.py', 'w').write('print(\"ESCAPED\")')\nimport json", says=""),
    Hostile("sitecustomize", "open('sitecustomize.py', 'w').write('print(\"forged\")')\nprint(subprocess.run([sys.executable, '-I', '-c', '1'], capture_output=True, text=True, env={'PYTHONPATH': '/tmp'}).stdout == '')", says="True"),
    Hostile("preloaded library", "print(subprocess.run(['/bin/true'], env={'LD_PRELOAD': '/tmp/evil.so'}, capture_output=True).returncode)", says="0"),
    Hostile("crash", "ctypes.string_at(0)"),
    Hostile("pickle", "import pickle\nclass P:\n  def __reduce__(self): return (os.system, ('cat OUTSIDE && echo ESCAPED',))\npickle.loads(pickle.dumps(P()))"),
    Hostile("exit code of a signal", "os._exit(137)"),
    Hostile("exit code of the processor limit", "os._exit(128 + signal.SIGXCPU)"),
]  # fmt: skip


@dataclass(frozen=True)
class Ran:
    results: dict[str, Result]
    neighbours: list[Result]
    visitors: list[object]
    outside: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text(SECRET)
    os.environ["LUDUS_TEST_SECRET"] = SECRET
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(f"\0ludus-{MARK}")
        local.listen()
        for door in (server, local):
            threading.Thread(target=count, args=(door, visitors), daemon=True).start()
        names = {"OUTSIDE": str(outside), "PORT": str(server.getsockname()[1]), "MARK": MARK}
        results, neighbours = asyncio.run(everything(names))
        yield Ran(results, neighbours, visitors, outside)
    del os.environ["LUDUS_TEST_SECRET"]


def count(door: socket.socket, visitors: list[object]) -> None:
    while True:
        try:
            visitors.append(door.accept())
        except OSError:
            return


async def everything(names: dict[str, str]) -> tuple[dict[str, Result], list[Result]]:
    gate = asyncio.Semaphore(AT_ONCE)
    waiting = len(PROGRAMS)
    results: dict[str, Result] = {}

    async def hostile(program: Hostile) -> None:
        nonlocal waiting
        source = program.source if program.shell else PRELUDE + program.source
        for name, value in names.items():
            source = source.replace(name, value)
        python = [sys.executable, "-I", "-B"]
        box = Sandbox(replace(LIMITS, wall=program.wall))
        python[0] = str(box.python_path)
        command = ["/bin/sh"] if program.shell else python
        async with gate:
            results[program.name] = await box.run([*command, "/program", MARK], source)
        waiting -= 1

    async def honest() -> list[Result]:
        neighbours: list[Result] = []
        while waiting:
            box = Sandbox(replace(LIMITS, wall=0.2 * FACTOR))
            neighbours.append(await box.python("print(sum(range(1000)))"))
        return neighbours

    _, neighbours = await asyncio.gather(asyncio.gather(*map(hostile, PROGRAMS)), honest())
    return results, neighbours


def test_there_are_enough():
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) >= 50


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_it_stays_inside_and_ends_with_its_cause(program: Hostile, ran: Ran):
    result = ran.results[program.name]
    assert result.cause is program.cause, result
    said = result.stdout + result.stderr
    assert "ESCAPED" not in said and SECRET not in said, said
    assert program.says in said, result
    assert len(result.stdout.encode("utf-8", "replace")) <= 3 * LIMITS.output


def test_nothing_outside_has_changed(ran: Ran):
    assert ran.outside.read_text() == SECRET
    assert os.listdir(ran.outside.parent) == [ran.outside.name]
    assert not ran.visitors


def test_neighbours_are_not_disturbed(ran: Ran):
    assert len(ran.neighbours) >= 10
    assert {(each.stdout, each.cause) for each in ran.neighbours} == {("499500\n", Cause.EXITED)}


def test_no_process_is_left(ran: Ran):
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    left = [line for line in listing.splitlines() if MARK in line or "sleep 31337" in line]
    assert not left


def graded(solution: str, grader: str = "assert call('add', 1, 2) == 3") -> Graded:
    return asyncio.run(Sandbox(replace(LIMITS, wall=4)).grade(solution, grader))


def test_a_right_and_a_wrong_solution():
    assert graded("def add(a, b): return a + b").verdict == "pass"
    assert graded("def add(a, b): return a - b").verdict == "fail"


@pytest.mark.parametrize(
    "solution",
    [
        "import os\nfor fd in range(3, 100):\n  try: os.write(fd, b'pass')\n  except OSError: pass",
        "import os\nprint('pass'); os._exit(0)",
        "class Always:\n  def __eq__(self, other): return True\ndef add(a, b): return Always()",
        "class Int(int):\n  def __eq__(self, other): return True\ndef add(a, b): return Int(5)",
        "import builtins\nbuiltins.AssertionError = KeyError\ndef add(a, b): assert False",
        "def add(a, b): return [[]] * 10**6",
        "def add(a, b): return float('nan')",
        "def add(a, b): raise SystemExit(0)",
        "def add(a, b):\n  while True: pass",
        "import os\nfor fd in range(3, 9):\n  try: os.write(fd, b'{\"value\": ' + b'[' * 10**5 + b'\\n')\n  except OSError: pass\ndef add(a, b): return 3",
        "import os\nwhile True:\n  try: os.write(3, b'x' * 10**5)\n  except OSError: pass",
        "syntax error",
    ],
)
def test_a_forged_verdict_is_a_failure(solution: str):
    assert graded(solution).verdict == "fail"


def test_a_broken_grader_gives_no_verdict():
    result = graded("def add(a, b): return 3", "1 / 0")
    assert result.verdict is None and "ZeroDivisionError" in result.grader.stderr


def test_an_answer_that_breaks_the_grader_is_a_failure():
    result = graded("def add(a, b): return None", "assert len(call('add', 1, 2)) == 2")
    assert result.verdict == "fail" and "TypeError" in result.grader.stderr


def test_honest_programs_of_several_processes_run():
    source = """
import asyncio, multiprocessing

def square(n):
    with total.get_lock():
        total.value += n * n

async def said():
    return (await (await asyncio.create_subprocess_exec("echo", "ok", stdout=-1)).communicate())[0]

total = multiprocessing.Value("i", 0)
with multiprocessing.Pool(2) as pool:
    pool.map(square, range(4))
print(total.value, asyncio.run(said()), open("/dev/null").read())
"""
    result = asyncio.run(Sandbox(replace(LIMITS, cpu=4)).python(source))
    assert result.ok and result.stdout == "14 b'ok\\n' \n", result


def test_input_files_and_output():
    box = Sandbox(LIMITS)
    result = asyncio.run(
        box.python("print(input(), open('a.txt').read())", "hello\n", {"a.txt": b"there"})
    )
    assert (result.stdout, result.exit, result.ok, result.text) == (
        *("hello there\n", 0, True),
        "hello there",
    )
    assert "\n[exit 1]" in asyncio.run(box.python("1/0")).text
    with pytest.raises(ValueError, match="without a slash"):
        asyncio.run(box.python("", files={"../x": b""}))


def test_cancelling_ends_the_program():
    async def cancelled() -> None:
        async with asyncio.timeout(0.5):
            await Sandbox(LIMITS).run(["/bin/sleep", "31338"])

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 31338" not in listing


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    require.cache_clear()
    try:
        with pytest.raises(SandboxMissing, match="apt-get install bubblewrap"):
            asyncio.run(Sandbox().python("print(1)"))
        monkeypatch.setattr(sandbox.shutil, "which", lambda name: "/usr/bin/false")
        with pytest.raises(SandboxMissing, match="allow user namespaces"):
            asyncio.run(Sandbox().python("print(1)"))
    finally:
        require.cache_clear()
