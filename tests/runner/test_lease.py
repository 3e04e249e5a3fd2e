"""Leases on GPUs, between processes and users that end as they like."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from runner.errors import SystemFaultError
from runner.gpus.leases import WHOLE, LeaseStore, claims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THIRD = Fraction(1, 3)
NOBODY = 65534

# Takes up to COUNT shares of PART on the GPUs, says which, and ends when its standard input does.
TAKER = """
import json, os, sys
from fractions import Fraction
from pathlib import Path
from runner.gpus.leases import LeaseStore
directory, uid, part, count, *uuids = sys.argv[1:]
if int(uid):
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
store, leases = LeaseStore(Path(directory)), []
sys.stdin.readline()
for number in range(int(count)):
    for uuid in uuids:
        lease = store.take({uuid: Fraction(part)})
        if lease is not None:
            leases.append(lease)
            break
print(json.dumps([list(lease.shares) for lease in leases]), flush=True)
sys.stdin.read()
"""


class Taker:
    """Another daemon that takes leases when it is told to."""

    def __init__(self, directory: Path, *uuids: str, part: str = "1", count: int = 1, uid: int = 0) -> None:
        arguments = [sys.executable, "-c", TAKER, str(directory), str(uid), part, str(count), *uuids]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(self) -> None:
        """Lets it take."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def got(self) -> list[str]:
        """The GPU of each of its leases."""
        assert self.process.stdout
        return [uuid for uuids in json.loads(self.process.stdout.readline()) for uuid in uuids]

    def take(self) -> list[str]:
        """Both."""
        self.go()
        return self.got()

    def kill(self) -> None:
        """Ends it as the kernel would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory in which others may have leases too, as /tmp is; pytest's own lie in a private one."""
    path = Path(f"/tmp/test-leases-{os.getpid()}")
    yield path
    for file in path.iterdir() if path.is_dir() else ():
        file.unlink()
    if path.is_dir():
        path.rmdir()


@pytest.fixture
def taker(directory: Path) -> Iterator[Callable[..., Taker]]:
    started: list[Taker] = []

    def make(*uuids: str, part: str = "1", count: int = 1, uid: int = 0) -> Taker:
        started.append(Taker(directory, *uuids, part=part, count=count, uid=uid))
        return started[-1]

    yield make
    for one in started:
        one.kill()
        for stream in (one.process.stdin, one.process.stdout):
            if stream:
                stream.close()


@contextmanager
def child_with(fd: int) -> Iterator[int]:
    """A shell that has inherited a descriptor, as an attempt's does, and waits."""
    read, write = os.pipe()
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", "read line"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, fd, fd)],
        setsid=True,
    )
    os.close(read)
    try:
        yield pid
    finally:
        os.close(write)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def taken(store: LeaseStore) -> dict[str, Fraction]:
    total: Counter[str] = Counter()
    for record in store.held():
        for uuid, share in record.shares.items():
            total[uuid] += share  # type: ignore[assignment]
    return dict(total)  # type: ignore[arg-type]


# --- one process ---


def test_a_whole_gpu_is_leased_once(directory: Path) -> None:
    store = LeaseStore(directory)
    lease = store.take({"GPU-a": WHOLE})
    assert lease is not None
    assert store.take({"GPU-a": WHOLE}) is None
    assert store.take({"GPU-a": Fraction(1, 100)}) is None
    assert taken(store) == {"GPU-a": 1}
    lease.release()
    assert store.held() == []
    assert list(directory.iterdir()) == []
    again = store.take({"GPU-a": WHOLE})
    assert again is not None
    again.release()


@pytest.mark.parametrize("parts", [[THIRD] * 3, [Fraction(1, 7)] * 7, [Fraction(5, 6), Fraction(1, 6)]])
def test_shares_add_up_to_the_whole_exactly(directory: Path, parts: list[Fraction]) -> None:
    store = LeaseStore(directory)
    leases = [store.take({"GPU-a": part}) for part in parts]
    assert None not in leases
    assert store.take({"GPU-a": Fraction(1, 1_000_000)}) is None
    assert taken(store) == {"GPU-a": 1}
    for lease in leases:
        assert lease is not None
        lease.release()


def test_several_gpus_are_leased_together_or_not_at_all(directory: Path) -> None:
    store = LeaseStore(directory)
    one = store.take({"GPU-b": THIRD})
    assert one is not None
    assert store.take({"GPU-a": WHOLE, "GPU-b": WHOLE}) is None
    assert taken(store) == {"GPU-b": THIRD}
    one.release()
    both = store.take({"GPU-a": WHOLE, "GPU-b": WHOLE})
    assert both is not None
    assert taken(store) == {"GPU-a": 1, "GPU-b": 1}
    both.release()


def test_a_record_says_whose_it_is_and_since_when(directory: Path) -> None:
    store = LeaseStore(directory)
    lease = store.take({"GPU-a": THIRD})
    assert lease is not None
    (record,) = store.held()
    assert (record.shares, record.uid, record.pid) == ({"GPU-a": THIRD}, os.getuid(), os.getpid())
    lease.name_root(4321)
    (record,) = store.held()
    assert record.pid == 4321
    (claim,) = claims([record], mine={4321})["GPU-a"]
    assert (claim.share, claim.pid, claim.is_mine) == (THIRD, 4321, True)
    assert not claims([record], mine=())["GPU-a"][0].is_mine
    lease.release()


def test_looking_makes_nothing(directory: Path) -> None:
    assert LeaseStore(directory).held() == []
    assert not directory.exists()


def test_the_directory_is_open_to_all_whatever_the_umask(directory: Path) -> None:
    old = os.umask(0o077)
    try:
        lease = LeaseStore(directory).take({"GPU-a": WHOLE})
    finally:
        os.umask(old)
    assert lease is not None
    assert stat.S_IMODE(directory.stat().st_mode) == 0o1777
    assert stat.S_IMODE(lease.path.stat().st_mode) == 0o644
    lease.release()


# --- what ends a lease ---


def test_a_lease_lives_as_long_as_the_child_that_inherited_it(directory: Path) -> None:
    store = LeaseStore(directory)
    lease = store.take({"GPU-a": WHOLE})
    assert lease is not None
    with child_with(lease.fd) as pid:
        lease.name_root(pid)
        lease.release()
        assert [record.pid for record in store.held()] == [pid]
        assert store.take({"GPU-a": WHOLE}) is None
    assert store.held() == []


def test_the_lease_of_a_killed_daemon_stays_with_its_attempt(directory: Path, tmp_path: Path) -> None:
    code = """
import os, sys, time
from pathlib import Path
from runner.gpus.leases import WHOLE, LeaseStore
lease = LeaseStore(Path(sys.argv[1])).take({"GPU-a": WHOLE})
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "read line < " + sys.argv[2]], os.environ,
                     file_actions=[(os.POSIX_SPAWN_DUP2, lease.fd, lease.fd)], setsid=True)
lease.name_root(pid)
print(pid, flush=True)
time.sleep(1000)
"""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    daemon = subprocess.Popen(
        [sys.executable, "-c", code, str(directory), str(fifo)], stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdout
    pid = int(daemon.stdout.readline())
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    store = LeaseStore(directory)
    assert [record.pid for record in store.held()] == [pid]
    assert store.take({"GPU-a": WHOLE}) is None
    with os.fdopen(os.open(fifo, os.O_WRONLY), "w") as end:
        watched = os.pidfd_open(pid)
        end.write("\n")
    with os.fdopen(watched) as handle:  # readable at its end
        assert select.select([handle], [], [], 30)[0]
    assert store.held() == []
    lease = store.take({"GPU-a": WHOLE})
    assert lease is not None
    assert len(list(directory.iterdir())) == 1  # what the dead one left is swept away
    lease.release()


def test_killed_holders_leave_nothing_leased(directory: Path, taker: Callable[..., Taker]) -> None:
    holders = [taker("GPU-a", "GPU-b", part="1/10", count=2) for _ in range(10)]
    got = [holder.take() for holder in holders]
    assert Counter(uuid for uuids in got for uuid in uuids) == {"GPU-a": 10, "GPU-b": 10}
    store = LeaseStore(directory)
    assert taken(store) == {"GPU-a": 1, "GPU-b": 1}
    for holder in holders[::2]:
        holder.kill()
    assert len(store.held()) == 10
    for holder in holders:
        holder.kill()
    assert store.held() == []
    lease = store.take({"GPU-a": WHOLE, "GPU-b": WHOLE})
    assert lease is not None
    lease.release()


def test_a_lease_that_shrinks_leaves_room_whoever_holds_it(directory: Path) -> None:
    store = LeaseStore(directory)
    lease, other = store.take({"GPU-a": WHOLE, "GPU-b": WHOLE}), store.take({"GPU-c": WHOLE})
    assert lease is not None
    assert other is not None
    with child_with(lease.fd) as pid:
        lease.name_root(pid)
        lease.release()  # only the child has it now, as after a daemon was killed
        LeaseStore(directory).shrink(pid, {"GPU-a": THIRD, "GPU-b": Fraction(1, 2)})
        assert taken(store) == {"GPU-a": THIRD, "GPU-b": Fraction(1, 2), "GPU-c": 1}
        store.shrink(pid, {"GPU-a": WHOLE, "GPU-b": THIRD})  # it never grows again
        assert taken(store) == {"GPU-a": THIRD, "GPU-b": THIRD, "GPU-c": 1}
        beside = store.take({"GPU-a": Fraction(2, 3)})
        assert beside is not None
        assert store.take({"GPU-a": Fraction(1, 100)}) is None
        beside.release()
    other.release()
    assert store.held() == []


# --- many at once ---


def test_ten_daemons_at_once_get_a_hundred_different_shares(directory: Path, taker: Callable[..., Taker]) -> None:
    gpus = [f"GPU-{number}" for number in range(8)]
    daemons = [taker(*gpus, part="1/13", count=12) for _ in range(10)]  # 120 are wanted of 104
    for daemon in daemons:
        daemon.go()
    got = Counter(uuid for daemon in daemons for uuid in daemon.got())
    assert got == dict.fromkeys(gpus, 13)
    assert taken(LeaseStore(directory)) == dict.fromkeys(gpus, Fraction(1))


FIFTY = """
import os, sys
from fractions import Fraction
from pathlib import Path
from runner.gpus.leases import LeaseStore
directory, part = sys.argv[1:]
start_read, start_write = os.pipe()
for number in range(50):
    if not os.fork():
        os.close(start_write)
        os.read(start_read, 1)  # until all are there
        lease = LeaseStore(Path(directory)).take({"GPU-a": Fraction(part)})
        os.write(1, b"yes\\n" if lease else b"no\\n")
        sys.stdin.read()
        os._exit(0)
os.close(start_write)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


@pytest.mark.parametrize(("part", "winners"), [("1", 1), ("1/3", 3), ("7/50", 7)])
def test_of_fifty_at_once_only_as_many_get_a_share_as_there_are(directory: Path, part: str, winners: int) -> None:
    arguments = [sys.executable, "-c", FIFTY, str(directory), part]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = Counter(process.stdout.readline().strip() for _ in range(50))
        assert len(LeaseStore(directory).held()) == winners
    assert said == {"yes": winners, "no": 50 - winners}


# --- other users ---

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")


@needs_root
def test_two_users_respect_each_other(directory: Path, taker: Callable[..., Taker]) -> None:
    theirs = taker("GPU-a", uid=NOBODY)
    assert theirs.take() == ["GPU-a"]  # nobody makes the directory
    store = LeaseStore(directory)
    assert store.take({"GPU-a": THIRD}) is None
    assert [record.uid for record in store.held()] == [NOBODY]
    mine = store.take({"GPU-b": WHOLE})
    assert mine is not None
    assert taker("GPU-b", "GPU-c", uid=NOBODY).take() == ["GPU-c"]
    mine.release()
    theirs.kill()
    freed = store.take({"GPU-a": WHOLE, "GPU-b": WHOLE})
    assert freed is not None
    freed.release()


@needs_root
def test_what_another_user_left_is_in_nobodys_way(directory: Path, taker: Callable[..., Taker]) -> None:
    lease = LeaseStore(directory).take({"GPU-b": WHOLE})
    assert lease is not None
    stale = lease.path.with_name("0-1-1-1.lease")
    stale.write_bytes(lease.path.read_bytes())
    assert taker("GPU-b", "GPU-a", uid=NOBODY).take() == ["GPU-a"]
    lease.release()
    assert taker("GPU-b", "GPU-a", uid=NOBODY).take() == ["GPU-b"]
    assert stale.exists()  # root's, in a sticky directory


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
        b'{"shares": 5, "pid": 1, "since": 0}\n',
        b'{"shares": {"GPU-b": "1"}, "pid": 1e999, "since": 0}\n',
        *(
            b'{"shares": {"GPU-b": "%s"}, "pid": 1, "since": 0}\n' % share
            for share in (b"1/0", b"-1", b"0", b"2", b"1e999999999", b"1/" + b"9" * 40)
        ),
    ],
)
def test_a_locked_file_that_is_no_lease_is_passed_over(directory: Path, content: bytes) -> None:
    store = LeaseStore(directory)
    lease = store.take({"GPU-b": WHOLE})
    odd = directory / "odd.lease"
    odd.write_bytes(content)
    os.mkfifo(directory / "fifo.lease")
    (directory / "link.lease").symlink_to("/dev/zero")
    with odd.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert taken(store) == {"GPU-b": 1}
        other = store.take({"GPU-a": WHOLE})
        assert other is not None
    other.release()
    assert lease is not None
    lease.release()


# --- a directory that cannot be used ---


def test_a_private_directory_is_refused(directory: Path) -> None:
    directory.mkdir(0o700)
    with pytest.raises(SystemFaultError, match="its mode is 700 and must be 1777"):
        LeaseStore(directory).take({"GPU-a": WHOLE})


def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(SystemFaultError, match="no GPU can be leased"):
        LeaseStore(link).take({"GPU-a": WHOLE})


def test_a_directory_that_is_removed_is_made_again(directory: Path) -> None:
    store = LeaseStore(directory)
    lease = store.take({"GPU-a": WHOLE})
    assert lease is not None
    lease.release()
    directory.rmdir()
    again = store.take({"GPU-a": WHOLE})
    assert again is not None
    again.release()


def test_a_full_disk_leaves_neither_a_file_nor_a_descriptor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LeaseStore(directory)
    store.held()
    before = psutil.Process().num_fds()

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(SystemFaultError, match="No space left on device; no GPU can be leased"):
            store.take({"GPU-a": WHOLE})
    assert (psutil.Process().num_fds(), list(directory.glob("*.lease"))) == (before, [])
    lease = store.take({"GPU-a": WHOLE})
    assert lease is not None
    lease.release()


def test_a_disk_that_refuses_later_ends_no_daemon(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LeaseStore(directory)
    lease = store.take({"GPU-a": WHOLE})
    assert lease is not None

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        for call in ("write", "unlink"):
            patched.setattr(f"runner.gpus.leases.os.{call}", refuse)
        lease.name_root(1)
        lease.release()
    assert store.held() == []
