"""Missing packages and programs are named with their remedy; timm imports with any torchvision wheel."""

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ebwm import compat


def test_require_returns_the_module():
    assert compat.require("json", "video") is json


def test_require_names_the_package_and_the_extra():
    with pytest.raises(ImportError) as caught:
        compat.require("no_such_package", "figures")
    message = str(caught.value)
    assert "'no_such_package'" in message and "pip install 'ebwm[figures]'" in message
    assert "\n" not in message


def test_require_names_a_package_that_is_there_but_broken(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise ImportError('libfoo.so is missing\\nsecond line')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError) as caught:
        compat.require("broken_package", "video")
    assert str(caught.value) == (
        "'broken_package' cannot be imported (libfoo.so is missing): pip install 'ebwm[video]'"
    )


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_import_timm_gives_models_that_run():
    timm = compat.import_timm()
    model = timm.create_model(
        "vit_small_patch14_dinov2", img_size=28, embed_dim=12, depth=1, num_heads=2, num_classes=0
    )
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 12)
    assert compat.import_timm() is timm


def importing_fails_once(message: str, monkeypatch) -> list[str]:
    """Let the first import of timm raise RuntimeError(message); returns the growing list of imports."""
    calls = []

    def fake(name: str) -> ModuleType:
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError(message)
        return ModuleType(name)

    monkeypatch.setattr(compat, "importlib", SimpleNamespace(import_module=fake))
    return calls


def test_import_timm_drops_what_was_half_imported(monkeypatch):
    kept = {n: ModuleType(n) for n in ("torch", "torchvision_neighbour")}
    half = {n: ModuleType(n) for n in ("torchvision", "torchvision.extension")}
    monkeypatch.setattr(compat, "_declared", ["already declared"])
    monkeypatch.setattr(compat, "sys", SimpleNamespace(modules=kept | half))
    calls = importing_fails_once("operator torchvision::nms does not exist", monkeypatch)
    assert compat.import_timm().__name__ == "timm"
    assert calls == ["timm", "timm"]
    assert set(compat.sys.modules) == set(kept)


def test_import_timm_has_no_effect_on_a_proper_install(monkeypatch):
    monkeypatch.setattr(compat, "importlib", SimpleNamespace(import_module=ModuleType))
    monkeypatch.setattr(compat, "_declare_torchvision_operators", lambda: pytest.fail("must not be called"))
    assert compat.import_timm().__name__ == "timm"


def test_import_timm_passes_other_errors_on(monkeypatch):
    calls = importing_fails_once("another trouble", monkeypatch)
    with pytest.raises(RuntimeError, match="another trouble"):
        compat.import_timm()
    assert calls == ["timm"]


def test_declaring_twice_is_harmless_and_lasts():
    code = (
        "import torch; from ebwm import compat; "
        "compat._declare_torchvision_operators(); compat._declare_torchvision_operators(); "
        "print(torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torchvision.nms.default", "torchvision.qnms.default"]


def test_system_part_finds_a_program(tmp_path, monkeypatch):
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    assert compat.system_part("chromium", "chromium", "drawing") == str(program)


@pytest.mark.parametrize(("command", "package", "remedy"), [
    ("chromium", "chromium", "apt-get install chromium"),
    ("quarto", "https://quarto.org", "get it from https://quarto.org"),
])
def test_system_part_says_how_to_get_it(command, package, remedy, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(compat.MissingPart) as caught:
        compat.system_part(command, package, "rendering pages")
    message = str(caught.value)
    assert f"'{command}'" in message and "rendering pages" in message and remedy in message
    assert "\n" not in message
