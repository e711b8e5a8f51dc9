"""The pinned packages, asked of the index: none was withdrawn ("yanked", PEP 592) by those who made it."""

import base64
import functools
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.paths import REPOSITORY as ROOT

YANKED = re.compile(r"warning: `([^`]+)` is yanked(?: \(reason: \"?(.*?)\"?\))?$", re.M)
NEWER_PYTHON = ("--python-version", "3.12", "--no-python-downloads")  # for what takes no older one
NO_INDEX = re.compile(r"Failed to fetch|dns error|error sending request|Connection refused|timed out|Network is unreachable")


@functools.cache
def uv() -> str:
    """The uv that the set-up installs with, or any; without one the test is skipped."""
    own = ROOT / ".venvs" / "uv" / "bin" / "uv"
    found = os.environ.get("UV") or (str(own) if own.exists() else shutil.which("uv"))
    return found or pytest.skip("no uv here to ask the index with: run `nox -s test`, which brings it")


def yanked(pins: str, *options: str, **variables: str) -> dict[str, str]:
    """Those of ``pins`` that the index calls yanked, with its reason. Skips the test where no index answers."""
    command = [uv(), "pip", "compile", "--no-deps", "--no-header", "--no-annotate", *options, "-"]
    ran = subprocess.run(command, input=pins, capture_output=True, text=True, env={**os.environ, **variables}, timeout=300)
    if ran.returncode and NO_INDEX.search(ran.stderr):
        pytest.skip(f"the package index does not answer: {' '.join(ran.stderr.split())[:200]}")
    assert ran.returncode == 0, ran.stderr
    return {name: reason or "no reason given" for name, reason in YANKED.findall(ran.stderr)}


def test_no_pinned_package_was_withdrawn():
    """Each file's pins, indirect ones too; a new choice is due where one was."""
    files = sorted((ROOT / "requirements").glob("*.txt"))
    newer = [file for file in files if "inference-perf" in file.name]
    usual = [file for file in files if file not in newer]
    asked = [*((batch, ()) for batch in batches(usual)), *((batch, NEWER_PYTHON) for batch in batches(newer))]
    with ThreadPoolExecutor() as at_once:  # each waits for the index most of its time
        found = list(at_once.map(lambda batch: yanked("\n".join(batch[0]), *batch[1]), asked))

    assert {line for batch, _ in asked for line in batch} == {line for file in files for line in pinned(file)}
    assert {pin: reason for packages in found for pin, reason in packages.items()} == {}


def pinned(file: Path) -> list[str]:
    """The lines of a requirement file that name a package."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def batches(files: Sequence[Path]) -> list[list[str]]:
    """The lines of all ``files``, each once; one batch has one of each package, as uv takes no two versions together."""
    found: list[dict[str, str]] = []
    for line in sorted({line for file in files for line in pinned(file)}):
        name = canonicalize_name(Requirement(line).name)
        fitting = next((batch for batch in found if name not in batch), None)
        if fitting is None:
            found.append(fitting := {})
        fitting[name] = line
    return [list(batch.values()) for batch in found]


def test_no_batch_has_a_package_twice_and_no_line_is_left_out(tmp_path):
    """With mocks of two files."""
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file, text in zip(files, ("-c b.txt\nThing==1.0  # why\nother==3\n", "thing==2.0\nother==3\n")):
        file.write_text(text)

    assert batches(files) == [["Thing==1.0", "other==3"], ["thing==2.0"]]


@pytest.fixture
def index(tmp_path):
    """A mock of an index: two releases of one package, the first withdrawn."""
    for version in ("1.0", "2.0"):
        with zipfile.ZipFile(tmp_path / f"thing-{version}-py3-none-any.whl", "w") as wheel:
            files = {
                "METADATA": f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n",
                "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            }
            record = []
            for name, text in files.items():
                digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
                record.append(f"thing-{version}.dist-info/{name},sha256={digest},{len(text)}\n")
                wheel.writestr(f"thing-{version}.dist-info/{name}", text)
            wheel.writestr(f"thing-{version}.dist-info/RECORD", "".join(record))
    page = '<a href="/{0}" data-yanked="it deletes files">{0}</a><a href="/{1}">{1}</a>'
    (tmp_path / "thing").mkdir()
    names = [f"thing-{version}-py3-none-any.whl" for version in ("1.0", "2.0")]
    (tmp_path / "thing" / "index.html").write_text(page.format(*names))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_withdrawn_package_is_found(index):
    """Pinned, it would be installed all the same; the release after it is in order."""
    alone = ("--default-index", index, "--no-cache", "--no-config")
    nowhere_else = {"UV_INDEX": "", "UV_FIND_LINKS": "", "UV_CONSTRAINT": ""}

    assert yanked("thing==1.0", *alone, **nowhere_else) == {"thing==1.0": "it deletes files"}
    assert yanked("thing==2.0", *alone, **nowhere_else) == {}


def test_where_no_index_answers_it_is_skipped_with_the_reason():
    """Not passed."""
    nowhere = {"UV_INDEX": "", "UV_FIND_LINKS": "", "UV_HTTP_RETRIES": "0"}
    with pytest.raises(pytest.skip.Exception, match="^the package index does not answer: "):
        yanked("thing==1.0", "--default-index", "http://127.0.0.1:9/", "--no-cache", **nowhere)


def test_every_requirement_file_is_audited():
    """The workflow names each file with an environment of its own; what constrains it comes with it."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pins.yml").read_text())
    (job,) = workflow["jobs"].values()
    steps = " ".join(step.get("run", "") for step in job["steps"])

    assert "pip-audit" in steps and "requirements/*.txt" in steps
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"].split(" ")[0]) for step in job["steps"] if "uses" in step)
