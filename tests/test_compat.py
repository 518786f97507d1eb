"""Missing packages and programs; timm with any torchvision wheel. Refusals are in refusals/figures.py."""

import importlib.util
import os
import subprocess
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
import torch

from ebwm import compat


def test_require_names_a_broken_package(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise ImportError('libfoo.so is missing\\nsecond line')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^'broken_package'.*\(libfoo.so is missing\).*'ebwm\[video\]'$"):
        compat.require("broken_package", "video")


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_import_timm_gives_models_that_run():
    model = compat.import_timm().create_model("vit_small_patch14_dinov2", img_size=28, embed_dim=12, depth=1,
                                              num_heads=2, num_classes=0)
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 12)


@pytest.mark.parametrize("errors, left", [
    ([], 4), (["operator torchvision::nms does not exist"], 2), (["another error"], 4)])
def test_import_timm_retries_without_the_half_imported_torchvision(monkeypatch, errors, left):
    results = iter([*map(RuntimeError, errors), ModuleType("timm")])

    def fail_once(name):
        if isinstance(result := next(results), Exception):
            raise result
        return result

    modules = dict.fromkeys(["torch", "torchvision_neighbour", "torchvision", "torchvision.extension"])
    monkeypatch.setattr(compat, "_declared", ["already declared"])
    monkeypatch.setattr(compat, "sys", SimpleNamespace(modules=modules))
    monkeypatch.setattr(compat, "importlib", SimpleNamespace(import_module=fail_once))
    with pytest.raises(RuntimeError, match="another") if errors == ["another error"] else nullcontext():
        assert compat.import_timm().__name__ == "timm"
    assert [*modules][:2] == ["torch", "torchvision_neighbour"] and len(modules) == left


def test_operators_can_be_declared_twice():
    code = ("import torch; from ebwm import compat; compat._declare_torchvision_operators(); "
            "compat._declare_torchvision_operators(); "
            "print(torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torchvision.nms.default", "torchvision.qnms.default"]


def test_programs_are_found_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert compat.system_part("chromium", "chromium", "drawing") == str(tmp_path / "chromium")


def test_extras_are_those_of_the_checkout_or_of_the_installed_package(monkeypatch, tmp_path):
    metadata = ["av>=14; extra == 'video'", "torch", "old; extra == 'text'"]
    monkeypatch.setattr(compat.importlib.metadata, "requires", lambda name: metadata)
    declared = compat.extras()
    assert {"av", "timm"} <= {*declared["video"]} and "old" not in declared["text"] and "ebwm" not in declared["dev"]
    monkeypatch.setattr(compat, "__file__", str(tmp_path / "ebwm" / "compat.py"))
    assert compat.extras() == {"video": ["av"], "text": ["old"]}
