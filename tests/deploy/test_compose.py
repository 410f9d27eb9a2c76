"""The compose file, as Compose itself reads it without an engine, and nginx's configuration as it is mounted."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from api import settings
from tests.conftest import clean_environment

FOLDER = Path(__file__).parents[2] / "deploy"
GIVEN = {"STAGECAST_API_KEYS": "alice:a-long-secret", "POSTGRES_PASSWORD": "p@ss/word"}


def compose(folder, **environment):
    """Have Compose read a copy of the file, which has no file .env beside it."""
    program = Path(sys.executable).with_name("docker-compose")
    shutil.copy(FOLDER / "compose.yaml", folder)
    kept = {name: value for name, value in clean_environment().items() if name not in {"EXTRA", "LISTEN", *GIVEN}}
    command = [program, "-f", folder / "compose.yaml", "config", "--format", "json"]
    return subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=False, timeout=60
    )  # fmt: skip


@pytest.fixture
def services(tmp_path):
    read = compose(tmp_path, **GIVEN)
    assert (read.returncode, read.stderr) == (0, "")
    return json.loads(read.stdout)["services"]


@pytest.mark.parametrize("missing", GIVEN)
def test_without_keys_or_a_password_nothing_is_started_and_it_is_said_what_to_do(tmp_path, missing):
    read = compose(tmp_path, **{name: value for name, value in GIVEN.items() if name != missing})
    assert read.returncode != 0
    assert f"write {missing}=" in read.stderr
    assert "deploy/.env" in read.stderr


def test_every_container_is_confined_and_of_a_version(services):
    assert set(services) == {"postgres", "stagecast", "nginx"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert int(service["mem_limit"]) > 0
        assert service["logging"]["options"]["max-size"]
        assert "privileged" not in service
        assert re.search(r":(local|\d)", service["image"])


def test_nothing_but_nginx_is_reached_from_outside_and_only_from_this_machine_unless_it_is_asked_for(services):
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert {name for name, ports in published.items() if ports} == {"nginx"}
    assert [port["host_ip"] for port in published["nginx"]] == ["127.0.0.1"]
    assert set(services["postgres"]["networks"]) == {"inside"}


def test_the_server_knows_its_settings_and_starts_behind_its_database(services, monkeypatch, tmp_path):
    server = services["stagecast"]
    monkeypatch.chdir(tmp_path)
    for name in [*os.environ]:  # a container has none of this machine's
        monkeypatch.delenv(name)
    for name, value in server["environment"].items():
        monkeypatch.setenv(name, value)
    loaded = settings.load()
    assert list(loaded.api_keys.values()) == ["alice"]
    assert loaded.database_url == "postgresql+asyncpg://stagecast@postgres/stagecast"
    assert server["environment"]["PGPASSWORD"] == services["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert server["depends_on"]["postgres"]["condition"] == "service_healthy"


def test_nginx_takes_its_configuration_as_it_is_mounted(services, tmp_path):
    [mounted] = services["nginx"]["volumes"]
    assert Path(mounted["source"]).name == "nginx.conf"
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") or pytest.skip("nginx is not installed")
    whole = f"pid nginx.pid; error_log stderr; events {{}} http {{ access_log off; include {FOLDER / 'nginx.conf'}; }}"
    (tmp_path / "whole.conf").write_text(whole)
    command = [program, "-t", "-q", "-p", tmp_path, "-e", "stderr", "-c", "whole.conf"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (tried.returncode, tried.stderr) == (0, "")
