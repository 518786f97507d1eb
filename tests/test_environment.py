"""The command in unusual surroundings: other locales, places that cannot be written, output that nobody reads."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
from sizes import ROOT

from ebwm import cli
from ebwm.allocator import OPTIONS, keep_freed_memory
from ebwm.data.tasks import load_task
from ebwm.training.presets import load_config

LONG = "a" * 5000


def call(shell, folder, **environment):
    """Run a shell command in a folder, where $EBWM stands for the command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EBWM": f"{sys.executable} -m ebwm",
                   "EBWM_DEVICE": "cpu", "EBWM_RUNS": "runs", **environment}
    return subprocess.run(["bash", "-c", shell], cwd=folder, env=environment, capture_output=True)


def explained(code, stderr):
    """The line of stderr that explains a failure."""
    *_, line = stderr.strip().splitlines()
    assert code in (1, 2) and line.startswith("ebwm: ") and "Traceback" not in stderr
    return line


def error_of(result):
    return explained(result.returncode, result.stderr.decode())


@pytest.mark.slow
def test_a_run_is_trained_and_shown_in_a_locale_without_utf8(tmp_path, monkeypatch):
    folder = tmp_path / "Größe"
    folder.mkdir()
    monkeypatch.setenv("EBWM_CACHE", str(folder / "Vorräte"))
    load_task(load_config("smoke").data)  # the clips of the run
    ascii_only = dict(LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", EBWM_RUNS="läufe")
    trained = call("$EBWM train smoke run.logger=tensorboard", folder, **ascii_only)
    assert trained.stdout.decode().strip() == str(folder / "läufe/001")
    shown = call("$EBWM runs show läufe/001", folder, **ascii_only)
    assert shown.returncode == 0 and "läufe/001" in shown.stdout.decode()


@pytest.mark.parametrize("runs", ["file", "dangling", "/proc/none", LONG, "file/inside"], ids=lambda name: name[:10])
def test_a_place_that_cannot_hold_runs_is_named(tmp_path, monkeypatch, capsys, runs):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "missing/folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBWM_RUNS", runs)
    monkeypatch.setenv("EBWM_DEVICE", "cpu")
    line = explained(cli.main(["train", "smoke"]), capsys.readouterr().err)
    assert runs[-30:] in line and len(line) < 250


@pytest.mark.parametrize("words", ["train", "runs show", "runs compare", "train --resume", "generate --model"])
def test_a_name_that_is_too_long_is_shortened_in_the_message(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    line = explained(cli.main([*words.split(), LONG]), capsys.readouterr().err)
    assert "too long" in line and len(line) < 250


def test_output_that_is_full_or_closed_gives_no_traceback(tmp_path):
    assert "No space left" in error_of(call("$EBWM runs list > /dev/full", tmp_path))
    for ending in (">&-", "2>&-"):
        result = call(f"$EBWM runs list {ending}", tmp_path)
        assert result.returncode == 0 and result.stderr == b""


def test_more_threads_than_openmp_can_start_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBWM_THREADS", "100000")
    assert "threads='100000'" in explained(cli.main(["train", "smoke"]), capsys.readouterr().err)


PAGES = """
import os, resource, sys
import numpy as np
from ebwm.allocator import OPTIONS, keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory() and set(OPTIONS) <= set(os.environ)
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [np.ones(2**17) for _ in range(40)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_pages_of_freed_memory_are_used_again():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    count = lambda *words: int(subprocess.check_output([sys.executable, "-c", PAGES, *words], env=environment))
    assert 3 * count("keep") < count()


def test_an_older_glibc_gets_the_largest_threshold_that_it_accepts(monkeypatch):
    older = SimpleNamespace(mallopt=lambda option, value: option == OPTIONS["MALLOC_TRIM_THRESHOLD_"] or value <= 2**25)
    monkeypatch.setattr("ctypes.CDLL", lambda name: older)
    monkeypatch.setattr(os, "environ", {})
    assert keep_freed_memory()
    assert os.environ == {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
