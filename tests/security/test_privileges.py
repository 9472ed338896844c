"""What code inside a sandbox may not do: become more than it is, see who else is there, or touch what runs it."""

import pytest

from tests.service import Service, Session
from tests.waiting import wait_until

_ATTEMPTS = {
    "write the agent's code": "open('/.fumehood/lib/x', 'w')",
    "replace the agent's Python": "os.rename('/.fumehood/bin/python3', '/.fumehood/bin/old')",
    "write /usr": "open('/usr/lib/x', 'w')",
    "write /etc/passwd": "open('/etc/passwd', 'a')",
    "write /etc/ld.so.preload": "open('/etc/ld.so.preload', 'w')",
    "write a shadowing library": "open('/usr/local/lib/python3.11/dist-packages/json.py', 'w')",
    "read root's folder": "os.listdir('/root')",
    "write /": "os.mkdir('/x')",
    "write beside the working folder": "os.mkdir('/home/x')",
    "replace the working folder": "os.rename('/home/sandbox', '/home/old')",
    "become root": "os.setuid(0)",
    "become another group": "os.setgid(0)",
    "join groups": "os.setgroups([0])",
    "make a root file setuid": "os.chmod('/usr/bin/env', 0o4755)",
    "give a file away": "open('own', 'w'); os.chown('own', 0, 0)",
    "mount": "call(libc.mount, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "unmount": "call(libc.umount2, b'/.fumehood', 2)",
    "change the root": "os.chroot('/tmp')",
    "change the root by pivot": "call(libc.syscall, 155, b'/tmp', b'/tmp')",
    "enter a namespace": "call(libc.setns, os.open('/proc/1/ns/mnt', os.O_RDONLY), 0)",
    "use a device it made": "os.mknod('disk', 0o666 | stat.S_IFBLK, os.makedev(8, 0)); os.open('disk', os.O_RDWR)",
    "use host memory": "os.mknod('mem', 0o666 | stat.S_IFCHR, os.makedev(1, 1)); os.open('mem', os.O_RDWR)",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "set the host's name": "socket.sethostname('x')",
    "reboot": "call(libc.reboot, 0x1234567)",
    "load a module": "call(libc.syscall, 175, 0, 0, b'')",
    "trace the agent": "call(libc.ptrace, 16, 1, 0, 0)",
    "seize the agent": "call(libc.ptrace, 0x4206, 1, 0, 0)",
    "read the agent's memory": "open('/proc/1/mem', 'rb').read(1)",
    "write the agent's memory": "open('/proc/1/mem', 'wb')",
    "read the agent's memory by call": "call(libc.process_vm_readv, 1, 0, 0, 0, 0, 0) or 1 / 0",
    "take the agent's root": "os.listdir('/proc/1/root')",
    "take the agent's folder": "os.listdir('/proc/1/cwd')",
    "read what the host sends": "os.open('/proc/1/fd/0', os.O_RDONLY | os.O_NONBLOCK)",
    "write to what the host sends": "os.open('/proc/1/fd/0', os.O_WRONLY | os.O_NONBLOCK)",
    "read what the host gets": "os.open('/proc/1/fd/1', os.O_RDONLY | os.O_NONBLOCK)",
    "write to the host": "os.open('/proc/1/fd/1', os.O_WRONLY | os.O_NONBLOCK)",
    "kill the agent": "os.kill(1, 9)",
    "stop the agent": "os.kill(1, signal.SIGSTOP)",
    "tell the agent that a child ended": "os.kill(1, signal.SIGCHLD)",
    "kill the agent's helpers": "on_helpers(lambda pid: os.kill(pid, 9))",
    "stop the agent's helpers": "on_helpers(lambda pid: os.kill(pid, signal.SIGSTOP))",
    "trace the agent's helpers": "on_helpers(lambda pid: call(libc.ptrace, 0x4206, pid, 0, 0))",
    "read the memory of the agent's helpers": "on_helpers(lambda pid: open(f'/proc/{pid}/mem', 'rb').read(1))",
    "ask the nursery for children": "on_helpers(lambda pid: os.open(f'/proc/{pid}/fd/0', os.O_RDWR | os.O_NONBLOCK))",
    "give a spare its order": "on_helpers(lambda pid: os.open(f'/proc/{pid}/fd/3', os.O_WRONLY | os.O_NONBLOCK))",
    "read a spare's answer": "on_helpers(lambda pid: os.open(f'/proc/{pid}/fd/1', os.O_RDONLY | os.O_NONBLOCK))",
    "lower the agent's limits": "resource.prlimit(1, resource.RLIMIT_NOFILE, (1, 1))",
    "raise its own limits": "resource.setrlimit(resource.RLIMIT_NPROC, (1 << 30, 1 << 30))",
    "make the agent the victim when memory ends": "open('/proc/1/oom_score_adj', 'w').write('1000')",
    "regain capabilities": "call(libc.prctl, 47, 2, 21, 0, 0)",
    "turn no_new_privs off": "call(libc.prctl, 38, 0, 0, 0, 0)",
    "write sysctls": "open('/proc/sys/kernel/hostname', 'w').write('x')",
    "trigger the host's kernel": "open('/proc/sysrq-trigger', 'w').write('c')",
    "load a program into the kernel": "call(libc.syscall, 321, 0, 0, 0)",
    "map host memory": "open('/dev/mem', 'rb')",
    "open a disk": "open('/dev/sda', 'rb')",
    "open KVM": "open('/dev/kvm', 'rb')",
    "make a tunnel": "fcntl.ioctl(os.open('/dev/net/tun', os.O_RDWR), 0x400454CA, b'tun0' + bytes(36))",
    "send raw packets": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "send raw frames": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "speak to the machine's hypervisor": "socket.socket(40, socket.SOCK_STREAM)",
    "hand calls to rings of the kernel": "call(libc.syscall, 425, 4, ctypes.create_string_buffer(200))",
    "handle its own page faults": "call(libc.syscall, 323, 0)",
    "count events of the processor": "call(libc.syscall, 298, ctypes.create_string_buffer(200), 0, -1, -1, 0)",
    "keep a key in the kernel": "call(libc.syscall, 248, b'user', b'name', b'value', 5, -3)",
    "ask for a key of the kernel": "call(libc.syscall, 249, b'user', b'name', 0, -3)",
    "load another kernel": "call(libc.syscall, 246, 0, 0, 0, 0)",
    "load another kernel from a file": "call(libc.syscall, 320, 0, 0, 0, b'', 0)",
    "load a module from a file": "call(libc.syscall, 313, 0, b'', 0)",
    "remove a module": "call(libc.syscall, 176, b'x', 0)",
    "open a file by its handle": "call(libc.syscall, 304, -100, ctypes.create_string_buffer(100), 0)",
    "watch a whole file system": "call(libc.syscall, 300, 0, 0)",
    "swap to a file": "call(libc.syscall, 167, b'/tmp/swap', 0)",
    "account for processes": "call(libc.syscall, 163, b'/tmp/accounts')",
    "reach the ports of the processor": "call(libc.syscall, 172, 3)",
    "change the segments of the processor": "call(libc.syscall, 154, 0, 0, 0)",
    "prepare a file system": "call(libc.syscall, 430, b'tmpfs', 0)",
    "clone a tree of mounts": "call(libc.syscall, 428, -100, b'/', 1)",
    "take a descriptor of the agent": "call(libc.syscall, 438, call(libc.syscall, 434, 1, 0), 0, 0)",
    "read the kernel's symbols": "open('/proc/kallsyms').read()",
    "read the kernel's memory": "open('/proc/kcore', 'rb').read(1)",
    "read the kernel's messages": "open('/dev/kmsg', 'rb').read(1)",
    "list the kernel's modules": "open('/proc/modules').read()",
    "read the machine's address map": "open('/proc/iomem').read()",
    "read the machine's firmware": "os.listdir('/sys/class/dmi')",
    "look into the kernel by tracing": "os.listdir('/sys/kernel/debug')",
    "see programs in the kernel": "os.listdir('/sys/fs/bpf')",
}
_HELPERS = """
import ctypes, fcntl, os, resource, signal, socket, stat, time
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def on_helpers(attack):
    # Raises PermissionError if all of them, the nursery and its spare, refused it.
    pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]
    helpers = [pid for pid in pids if b'fumehood.guest.nursery' in open(f'/proc/{pid}/cmdline', 'rb').read()]
    assert helpers
    for pid in helpers:
        try:
            attack(pid)
        except FileNotFoundError:
            pass
        except PermissionError:
            continue
        else:
            return
    raise PermissionError('all refused')
"""
_PRELUDE = f"""{_HELPERS}
try:
    ATTEMPT
except (OSError, ValueError, AttributeError, ZeroDivisionError) as error:
    print("refused", error)
else:
    print("done")
"""


@pytest.mark.parametrize("attempt", _ATTEMPTS.values(), ids=_ATTEMPTS)
def test_user_code_is_refused_to(inside: Session, attempt: str) -> None:
    result = inside.run(_PRELUDE.replace("ATTEMPT", attempt))["structuredContent"]
    assert result["stdout"].startswith("refused"), result
    assert inside.sh("echo alive")["structuredContent"]["stdout"] == "alive\n"


@pytest.mark.parametrize("allowed", ["os.kill(os.getpid(), 0)", "call(libc.getppid)", "os.listdir('/proc/1')"])
def test_what_would_not_be_refused_would_be_seen(inside: Session, allowed: str) -> None:
    assert inside.run(_PRELUDE.replace("ATTEMPT", allowed))["structuredContent"]["stdout"] == "done"


# gVisor lets everybody have a user namespace, and in it every capability: over what is in it, and nothing else.
_NAMESPACED = """
child = os.fork()
if child == 0:
    call(libc.unshare, 0x10000000 | 0x20000)
    for kind, own in (('uid', 1000), ('gid', 1000)):
        with open(f'/proc/self/{kind}_map', 'w') as file:
            file.write(f'0 {own} 1')
    try:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        ATTEMPT
    except (OSError, ValueError, AttributeError, ZeroDivisionError) as error:
        os.write(1, f'refused {error}'.encode())
    else:
        os.write(1, b'done')
    os._exit(0)
_, _ = os.waitpid(child, 0)
"""
_IN_A_NAMESPACE = {
    name: _ATTEMPTS[name]
    for name in (
        *("kill the agent", "stop the agent", "trace the agent", "seize the agent", "kill the agent's helpers"),
        *("read the agent's memory", "write the agent's memory", "take the agent's root", "lower the agent's limits"),
        *("read what the host sends", "write to what the host sends", "read what the host gets", "write to the host"),
        *("write the agent's code", "write /usr", "write /etc/passwd", "write /", "replace the working folder"),
        *("make a root file setuid", "use a device it made", "use host memory", "set the clock", "reboot"),
        *("load a module", "load another kernel", "load a program into the kernel", "enter a namespace"),
        *("set the host's name", "unmount", "take a descriptor of the agent", "trigger the host's kernel"),
    )
}


@pytest.mark.parametrize("attempt", _IN_A_NAMESPACE.values(), ids=_IN_A_NAMESPACE)
def test_a_user_namespace_does_not_let_user_code(inside: Session, attempt: str) -> None:
    result = inside.run(_HELPERS + _NAMESPACED.replace("ATTEMPT", attempt))["structuredContent"]
    assert result["stdout"].startswith("refused"), result
    assert inside.sh("echo alive")["structuredContent"]["stdout"] == "alive\n"


def test_a_user_namespace_gives_power_over_what_is_in_it(inside: Session) -> None:
    inside.sh("echo here > /tmp/marker")
    attempt = "call(libc.mount, b'none', b'/tmp', b'tmpfs', 0, 0); assert os.listdir('/tmp') == []"
    result = inside.run(_HELPERS + _NAMESPACED.replace("ATTEMPT", attempt))["structuredContent"]
    assert result["stdout"] == "done", "the attempts above are really made with capabilities"
    assert inside.sh("cat /tmp/marker")["structuredContent"]["stdout"] == "here\n", "nobody else sees its mounts"


_STATUS = "cat /proc/self/status"


@pytest.mark.parametrize("way", ["code", "command", "task", "child of code"])
def test_user_code_has_no_privilege_at_all(inside: Session, way: str) -> None:
    if way == "code":
        status = inside.run("print(open('/proc/self/status').read())")["structuredContent"]["stdout"]
    elif way == "child of code":
        status = inside.run(f"import subprocess; print(subprocess.getoutput('{_STATUS}'))")["structuredContent"][
            "stdout"
        ]
    elif way == "command":
        status = inside.sh(_STATUS)["structuredContent"]["stdout"]
    else:
        task_id = inside.invoke("startCommandExecution", command=_STATUS)["structuredContent"]["taskId"]
        described = inside.invoke("getTask", taskId=task_id)["structuredContent"]
        while described["taskStatus"] in ("submitted", "working"):
            described = inside.invoke("getTask", taskId=task_id)["structuredContent"]
        status = described["stdout"]
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    assert fields["Uid"].split() == ["1000"] * 4
    assert fields["Gid"].split() == ["1000"] * 4
    assert fields["Groups"].split() == []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        assert int(fields[name], 16) == 0, name


def test_no_new_privileges_can_come_from_a_program(inside: Session) -> None:
    code = "import ctypes; print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))"
    assert inside.run(code)["structuredContent"]["stdout"] == "1"
    found = inside.sh("find / -xdev \\( -perm -4000 -o -perm -2000 \\) -type f 2>/dev/null; getcap -r / 2>/dev/null")
    assert found["structuredContent"]["stdout"] == "", "setuid programs and file capabilities have no business here"


def test_only_folders_of_the_user_and_temporary_ones_can_be_written(inside: Session) -> None:
    found = inside.sh("find / -xdev -writable -not -type l 2>/dev/null")["structuredContent"]["stdout"].split()
    allowed = ("/home/sandbox", "/tmp", "/var/tmp", "/run/lock", "/var/lock")
    assert [path for path in found if not path.startswith(allowed)] == []
    assert any(path.startswith("/home/sandbox") for path in found), "the search itself works"


def test_no_device_of_the_host_is_there(inside: Session) -> None:
    listed = inside.sh("find /dev -type b; find /dev -type c")["structuredContent"]["stdout"].split()
    gvisors_own = {"full", "fuse", "net/tun", "null", "ptmx", "pts/ptmx", "random", "tty", "urandom", "zero"}
    assert {path.removeprefix("/dev/") for path in listed} <= gvisors_own


def test_the_agent_holds_no_secret(inside: Session, server: Service) -> None:
    """Whatever user code can read of the first process; the keys of the server are nowhere in the sandbox."""
    seen = inside.run(
        "for name in ('environ', 'cmdline', 'maps', 'status', 'mountinfo', 'cgroup'):\n"
        "    print(name, open(f'/proc/1/{name}', errors='replace').read().replace('\\0', ' '))\n"
        "import os; print(dict(os.environ))"
    )["structuredContent"]["stdout"]
    assert "fumehood.guest.agent" in seen, "the first process is the agent"
    variables = server.environment()
    for secret in (variables["AWS_SECRET_ACCESS_KEY"], variables["AWS_ACCESS_KEY_ID"], str(server.data), "AWS_"):
        assert secret not in seen


def test_no_file_of_the_host_is_seen(inside: Session, server: Service) -> None:
    result = inside.sh(f"ls -d /work /var/lib/fumehood {server.data} /proc/1/root/ /sys/fs/cgroup/*/fumehood")
    assert result["structuredContent"]["stdout"] == ""
    mounts = inside.sh("cat /proc/self/mountinfo")["structuredContent"]["stdout"]
    assert str(server.data) not in mounts


def test_a_neighbour_is_neither_seen_nor_reached(inside: Session, session: Session) -> None:
    session.sh("touch /tmp/mine /dev/shm/mine; (exec -a neighbour sleep 600) >/dev/null 2>&1 &")
    session.run(
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0abstract'); s.listen()\n"
        "t = socket.socket(); t.bind(('127.0.0.1', 4444)); t.listen()"
    )
    looked = inside.sh("ls /tmp/mine /dev/shm/mine; pgrep -af [n]eighbour || echo none")["structuredContent"]["stdout"]
    assert looked == "none\n"
    code = """
import socket
for family, address in ((socket.AF_UNIX, '\\0abstract'), (socket.AF_INET, ('127.0.0.1', 4444))):
    try:
        socket.socket(family).connect(address); print('connected')
    except OSError as error:
        print('refused')
"""
    assert inside.run(code)["structuredContent"]["stdout"] == "refused\nrefused"
    assert session.run(code)["structuredContent"]["stdout"] == "connected\nconnected", "the neighbour itself is there"


_KILLS = {
    "the kernel": "import os; os.kill(os.getpid(), 9)",
    "every process it may": "import os; os.kill(-1, 9)",
    "the first process": "import os\ntry: os.kill(1, 9)\nexcept PermissionError: pass",
    "its own group": "import os; os.killpg(0, 9)",
    "all it sees in /proc": "import os\nfor n in os.listdir('/proc'):\n"
    "  try: os.kill(int(n), 9)\n  except (OSError, ValueError): pass",
    "all, by stopping": "import os\nfor n in os.listdir('/proc'):\n"
    "  if n != str(os.getpid()):\n    try: os.kill(int(n), 19)\n    except (OSError, ValueError): pass",
}


@pytest.mark.parametrize("code", _KILLS.values(), ids=_KILLS)
def test_the_session_survives_code_that_kills(inside: Session, code: str) -> None:
    inside.invoke("writeFiles", content=[{"path": "kept", "text": "kept"}])
    inside.run(code)
    assert inside.sh("cat kept")["structuredContent"]["stdout"] == "kept"
    assert inside.run("print(6 * 7)")["structuredContent"]["stdout"] == "42"


def test_a_killed_kernel_says_so_and_the_next_call_starts_anew(inside: Session) -> None:
    inside.run("state = 1")
    died = inside.run("import os; print('before', flush=True); os.kill(os.getpid(), 9)")
    assert died["isError"] is True
    assert died["structuredContent"]["exitCode"] == 137
    assert died["structuredContent"]["stdout"] == "before"
    assert "SIGKILL" in died["structuredContent"]["stderr"]
    assert "NameError" in inside.run("state")["structuredContent"]["stderr"]


def test_stopping_a_task_ends_all_its_processes(inside: Session) -> None:
    command = "sleep 1234 & setsid sleep 1234 & (sleep 1234; true) & sh -c 'sleep 1234; true'"
    count = "pgrep -fx 'sleep 1234' | wc -l"
    task_id = inside.invoke("startCommandExecution", command=command)["structuredContent"]["taskId"]
    wait_until(lambda: inside.sh(count)["structuredContent"]["stdout"].strip() == "4", "four sleepers")
    assert inside.invoke("stopTask", taskId=task_id)["structuredContent"]["taskStatus"] == "canceled"
    wait_until(lambda: inside.sh(count)["structuredContent"]["stdout"].strip() == "0", "no sleepers")
