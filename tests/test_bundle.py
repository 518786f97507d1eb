"""Bundles for a machine without a network: contents, the program that runs there, packed results and their adoption."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_bare import SITE
from tiny_figure import NOTEBOOKS, refusal, rewrite, write_manifest, write_project

from ebwm import cli, figures
from ebwm.figures import bundle as bundles
from ebwm.figures import offline, wheels
from ebwm.figures.adopt import DIGESTS, SAFELY, STATUS, adopt
from ebwm.files import sha256

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HAS = [text.partition("==")[0] for text in wheels.needed([], False, PYTHON)]


def stand_in(folder: Path) -> Path:
    """A folder with a wheel of one module."""
    folder.mkdir()
    info = "standin-1.0.dist-info"
    with zipfile.ZipFile(folder / "standin-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("standin.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: standin\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def command(name: str, source: str, minutes: float = 1) -> dict:
    """A step that runs a line of Python."""
    return {"name": name, "figure": "", "minutes": minutes, "command": ["python", "-c", source]}


STEPS = [
    command("imports", "import standin, ebwm; print(ebwm.__file__)"),
    command("too_long", "", minutes=60),
    command("fails", "raise SystemExit(3)"),
]


def unpack(tar: Path, folder: Path) -> Path:
    """The unpacked bundle."""
    with tarfile.open(tar) as file:
        file.extractall(folder, **SAFELY)
    return folder / bundles.TOP


def run_there(here: Path) -> subprocess.CompletedProcess:
    """Call run.py in a Python that lacks Jupyter, nbdev and snakemake."""
    (here.parent / "hidden").mkdir(exist_ok=True)
    (here.parent / "hidden/sitecustomize.py").write_text(SITE)
    environment = {**os.environ, "PYTHONPATH": str(here.parent / "hidden")}
    return subprocess.run([sys.executable, str(here / "run.py")], cwd=here.parent, env=environment,
                          capture_output=True, text=True)


@pytest.mark.slow
def test_a_bundle_runs_there_and_its_results_come_home(project, tmp_path_factory, monkeypatch):
    part = project / "figures/fan/runs/smoke.parts/seeds-0_sizes-8/manifest.json"
    write_manifest(part.parent, id="fan")
    steps = [*STEPS, *bundles.steps_of("smoke", ["tiny"])]
    out = tmp_path_factory.mktemp("carried") / "b.tar.gz"
    made = bundles.bundle(out, steps, "smoke", PYTHON, HAS, stand_in(project / "wheels"))
    assert made.wheels == ["standin-1.0-py3-none-any.whl"] and made.size == out.stat().st_size
    here = unpack(out, tmp_path_factory.mktemp("there"))
    assert (here / "src" / part.relative_to(project)).is_file(), "earlier parts travel along"
    done = run_there(here)
    assert done.returncode == 1 and "too_long: skipped; its time no longer fits" in done.stdout, done.stderr
    results = here.parent / "results"
    assert str(here / "src/ebwm") in (here / "logs/imports.log").read_text()

    home = write_project(tmp_path_factory.mktemp("home"))
    monkeypatch.chdir(home)
    adopted = adopt([results / "results-1.tar.gz"])
    assert [step["state"] for step in adopted.status["steps"]] == ["done", "skipped", "failed", "done"]
    earlier, run = adopted.runs
    assert earlier.part and earlier.stale == ("made without the runner: its inputs are unknown",)
    assert run == ("tiny", home / "figures/tiny/runs/smoke", (), False)
    there = here / "src/figures/tiny/runs/smoke"
    assert {p.name: sha256(p) for p in run.folder.iterdir()} == {p.name: sha256(p) for p in there.iterdir()}
    assert figures.promote("tiny", "smoke")

    rewrite(home / NOTEBOOKS[0], "walking", "going")
    assert adopt([results / "results-1.tar.gz"]).runs[1].stale == ("notebook",)
    (run.folder / "losses.parquet").write_text("other")
    assert "exists with other contents; replace it with --force" in refusal(adopt, [results / "results-1.tar.gz"])
    adopt([results / "results-1.tar.gz"], force=True)
    assert sha256(run.folder / "losses.parquet") == sha256(there / "losses.parquet")

    monkeypatch.setattr(offline, "_machine", lambda environment: {})
    assert offline.main(here, ["--only", "imports", "--out", "again"]) == 0, "what was done is not done again"
    assert len(adopt([Path("again/results-1.tar.gz")]).status["steps"]) == len(steps)
    (here / "src/pyproject.toml").write_text("")
    with pytest.raises(SystemExit, match=r"src/pyproject\.toml differs from its digest"):
        offline.main(here, [])


def test_states_of_steps(tmp_path):
    sleeps = command("sleeps", "import time; time.sleep(600)", minutes=0.01)
    run = lambda step, deadline: offline.run_step(step, tmp_path, tmp_path / "logs", dict(os.environ), deadline)
    made = [run(STEPS[2], 1e9), run(sleeps, 1e9), run(sleeps, 0)]
    assert [step["state"] for step in made] == ["failed", "stopped", "skipped"]


# Packed results


def test_results_are_packed_into_files_of_limited_size(project, tmp_path):
    root, out = tmp_path / "there/src", tmp_path / "results"
    for name, size in {"tiny/runs/gpu": 290_000, "fan/runs/gpu": 900_000, "benchmarks/h100": 290_000,
                       "fan/runs/gpu.parts/seeds-0": 290_000, "fan/runs/.gpu@a@1": 10}.items():
        write_manifest(root / "figures" / name)
        (root / "figures" / name / "benchmarks.json").touch()
        (root / "figures" / name / "data.bin").write_bytes(os.urandom(size))
    found = offline.units(root.parent, "gpu")
    assert list(found) == ["figures/benchmarks/h100", "figures/fan/runs/gpu", "figures/fan/runs/gpu.parts/seeds-0",
                           "figures/tiny/runs/gpu"]
    limit = 600_000 + offline.RESERVE
    left = offline.pack(found, out, {"steps": []}, most=limit, files=2)
    assert left == ["figures/fan/runs/gpu"]
    packed = sorted(out.iterdir())
    assert [path.name for path in packed] == ["results-1.tar.gz", "results-2.tar.gz"]
    assert all(path.stat().st_size <= limit for path in packed)
    assert "also name results-2.tar.gz" in refusal(adopt, packed[:1])
    assert offline.pack({}, out, {}) == [] and len([*out.iterdir()]) == 1
    assert "belongs to other results" in refusal(adopt, [out / "results-1.tar.gz", *other_pack(tmp_path)])


def other_pack(folder: Path) -> list[Path]:
    offline.pack({"logs/a.log": {"logs/a.log": Path(__file__)}}, folder / "other", {})
    return [folder / "other/results-1.tar.gz"]


def entry(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in {"size": len(content), **fields}.items():
        setattr(info, field, value)
    return info, content


LINK = entry("figures/tiny/runs/gpu/a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")


@pytest.mark.parametrize(("member", "message"), [
    (entry("figures/tiny/runs/../../../x"), "is no path"), (entry("/tmp/x"), "is no path"), (LINK, "is no path"),
    (entry("figures/tiny/tiny.png"), "is no path"), (entry("figures/tiny/runs/.gpu/a"), "is no path"),
    (entry("logs/added.log"), "its files are not those"),
    (entry("logs/known.log", b"changed"), "differs from its digest"),
    (entry("logs/known.log"), "its digests.json is damaged"),
], ids=["upward", "absolute", "link", "record", "hidden", "added", "changed", "pack"])
def test_results_that_are_not_what_was_packed_are_refused(project, member, message):
    digests = dict.fromkeys((STATUS, *(["logs/known.log"] if member[0].name == "logs/known.log" else [])), "0" * 64)
    pack = "../../up" if message.endswith("damaged") else "a" * 64
    text = json.dumps({"pack": pack, "part": 1, "parts": 1, "files": digests}).encode()
    members = [entry(DIGESTS, text), entry(STATUS), member]
    with tarfile.open("results-1.tar.gz", "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    before = {path for path in project.rglob("*")}
    assert message in refusal(adopt, [Path("results-1.tar.gz")])
    assert {path for path in project.rglob("*")} == before


# Requests


@pytest.mark.parametrize(("words", "message"), [
    (["b.zip", "--figures", "tiny"], "OUT='b.zip': must be a file that ends in .tar or .tar.gz"),
    (["nbs.tar", "--figures", "tiny"], "OUT='nbs.tar'"),
    (["b.tar", "--figures", "tinny"], "did you mean 'tiny'?"),
    (["b.tar", "--steps", "kernels"], "--steps='kernels'"),
    (["b.tar"], "has no gpu_plan; name figures with --figures ID"),
    (["b.tar", "--figures", "tiny", "--python", "3"], "--python='3'"),
    (["b.tar", "--figures", "tiny", "--wheels", "none"], "--wheels='none': must be an existing folder"),
    (["b.tar", "--figures", "tiny", "--wheels", "nbs"], "must hold the wheels that the machine lacks; add"),
])
def test_bad_requests_are_refused_in_one_line(project, capsys, words, message):
    (project / "nbs.tar").mkdir()
    assert cli.main(["bundle", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and not (project / "b.tar").exists()


def test_the_wheels_are_pinned_and_leave_out_what_the_machine_has():
    found = wheels.needed(["text"], True, "3.12", ["psutil"])
    names = {text.partition("==")[0] for text in found}
    assert all("==" in text for text in found) and names >= {"pydantic", "pydantic-core", "datasets", "pytest"}
    assert not names & {"torch", "numpy", "scipy", "psutil", "snakemake", "papermill", "nbdev"}
