"""Files that are written whole or not at all."""

import os
import resource
import subprocess
import sys

import pytest

from helpers import paths


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    """Its new text, alone in its folder."""
    file = tmp_path / "README.md"
    file.write_text("old")
    paths.write(file, "new")

    assert (file.read_text(), list(tmp_path.iterdir())) == ("new", [file])


def test_what_cannot_be_written_whole_leaves_the_old_file(tmp_path):
    """A mock of a full disk: no file of this process may be larger than 4 KiB. The error names the file."""
    file = tmp_path / "README.md"
    file.write_text("old")
    code = f"from helpers import paths; from pathlib import Path; paths.write(Path({str(file)!r}), 100_000 * 'x')"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    run = subprocess.run([sys.executable, "-B", "-c", code], preexec_fn=limit, capture_output=True, text=True)

    assert run.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: {str(file)!r}"
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


@pytest.mark.parametrize(("pid", "stays"), [(os.getppid(), True), (2**22 + 1, False)])
def test_half_a_file_of_a_killed_writer_is_removed_by_the_next(tmp_path, pid, stays):
    """That of a living one is not."""
    half = tmp_path / f".README.md.{pid}"
    half.write_text("ha")
    paths.write(tmp_path / "README.md", "new")

    assert half.exists() is stays
