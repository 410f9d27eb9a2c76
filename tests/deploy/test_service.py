"""The systemd unit, as systemd itself judges it, and the time that it gives the server to end."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api.storage.child import SHUTDOWNS
from api.tracing import FLUSH_S

UNIT = Path(__file__).parents[2] / "deploy" / "stagecast.service"
EXPOSED = 20
"""In tenths of systemd's figure, which goes from 0, confined, to 10; what is left is the network and files to read."""


def analyze(*arguments):
    program = shutil.which("systemd-analyze") or pytest.skip("systemd-analyze is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def unit(tmp_path):
    """Return the unit with a program that is there."""
    text, changed = re.subn(
        "(?m)^ExecStart=/opt/stagecast/bin/stagecast ", f"ExecStart={sys.executable} ", UNIT.read_text()
    )
    assert changed == 1
    (tmp_path / UNIT.name).write_text(text)
    return tmp_path / UNIT.name


def given(name):
    return re.findall(rf"(?m)^{name}=(.*)$", UNIT.read_text())


def test_systemd_takes_the_unit_without_a_word(unit):
    done = analyze("verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_confined(unit):
    done = analyze("security", "--offline=true", f"--threshold={EXPOSED}", "--no-pager", str(unit))
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout.splitlines()[-1])


@pytest.mark.filterwarnings("ignore:Deprecated 'header' parameter")
def test_there_is_time_for_the_longest_end():
    from api.server import GOODBYE_S

    [kill_mode], [limit_s] = given("KillMode"), given("TimeoutStopSec")
    assert kill_mode == "mixed", "PostgreSQL would be told to end beside the server that still stores answers"
    assert int(limit_s) > GOODBYE_S + FLUSH_S + sum(wait_s for _, wait_s in SHUTDOWNS)


def test_what_the_unit_may_write_is_where_the_server_writes():
    folders = {f"/var/lib/{name}" for name in given("StateDirectory")} | {
        f"/var/cache/{name}" for name in given("CacheDirectory")
    }
    assert {value.partition("=")[2] for value in given("Environment")} == folders
