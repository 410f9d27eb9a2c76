"""The image, as far as it can be told without building one."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
PACKAGED = ("api", "pipeline", "plugins", "alembic")


def instructions():
    """Return the last stage's instructions, and before them those of the others: each with its stage's name."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    stage, found = "", []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.partition(" AS ")[2]
        if word:
            found.append((stage, word, rest.strip()))
    return found


def last(wanted):
    """Return what the last instruction of a kind in the image's own stage says."""
    return [rest for stage, word, rest in instructions() if not stage and word == wanted][-1]


def copied(stage):
    """Return what the stage takes out of the repository."""
    copies = [rest.split() for named, word, rest in instructions() if (named, word) == (stage, "COPY")]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def kept_back(path):
    """Say whether ``.dockerignore``, whose last line that fits decides, keeps a path from the build."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        steps = path.split("/")
        places = ["/".join(steps[:n]) for n in range(1, len(steps) + 1)]
        if any(fnmatch.fnmatch(place, pattern) or ("**/" in line and pattern in steps) for place in places):
            ignored = not line.startswith("!")
    return ignored


def test_a_linter_has_nothing_to_say_of_the_dockerfile():
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_runs_is_no_root_and_gets_the_signals_itself():
    uid, gid = last("USER").split(":")
    assert int(uid) > 0 < int(gid)
    assert [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))] == ["stagecast", "serve", "--host", "0.0.0.0"]


def test_every_image_that_is_built_upon_has_a_version():
    stages = {stage for stage, _, _ in instructions()}
    images = {rest.split()[0] for _, word, rest in instructions() if word == "FROM"} - stages
    assert all(re.search(r":\d", image) for image in images), images


@pytest.fixture(scope="module")
def tracked():
    """Return the files that belong to the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return listed.stdout.splitlines()


def test_the_build_is_given_what_it_copies_and_no_secrets(tracked):
    sources = [*copied("page"), *copied("installed")]
    taken = [file for file in tracked if any(file == each or file.startswith(f"{each}/") for each in sources)]
    assert {each for each in sources if not any(f"{file}/".startswith(f"{each}/") for file in taken)} == set()
    assert [file for file in taken if kept_back(file)] == []
    secret = [".env", "deploy/.env", "api/.env", ".git/config", "api/page/index.html", "ui/node_modules/x/y.js"]
    assert [file for file in secret if not kept_back(file)] == []


def test_the_wheel_of_what_is_copied_is_whole(tracked, tmp_path):
    for source in copied("installed"):
        of_tree = [file for file in tracked if file == source or file.startswith(f"{source}/")]
        for file in of_tree:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, tmp_path / file)
    page = tmp_path / "api" / "page" / "index.html"
    page.parent.mkdir()
    page.touch()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {file for file in tracked if file.split("/")[0] in PACKAGED} | {"api/page/index.html"}
    assert {file.replace("alembic/", "api/migrations/", 1) for file in wanted} - names == set()


def test_the_health_check_tells_a_server_that_answers_from_none(server):
    check = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert check[0] == "python"

    def code(port):
        command = [sys.executable, *(word.replace("8000", str(port)) for word in check[1:])]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False, timeout=60).returncode

    assert code(server.port) == 0
    assert code(free_port()) != 0
