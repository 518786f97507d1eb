"""Missing packages and programs; timm with any torchvision wheel. Refusals are in refusals/figures.py."""

import subprocess
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest

from ebwm import compat


def test_require_names_a_broken_package(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise ImportError('libfoo.so is missing\\nsecond line')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"^'broken_package'.*\(libfoo.so is missing\).*'ebwm\[video\]'$"):
        compat.require("broken_package", "video")


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


def test_extras_are_those_of_the_checkout_or_of_the_installed_package(monkeypatch, tmp_path):
    metadata = ["av>=14; extra == 'video'", "torch", "old; extra == 'text'"]
    monkeypatch.setattr(compat.importlib.metadata, "requires", lambda name: metadata)
    declared = compat.extras()
    assert {"av", "timm"} <= {*declared["video"]} and "old" not in declared["text"] and "ebwm" not in declared["dev"]
    monkeypatch.setattr(compat, "__file__", str(tmp_path / "ebwm" / "compat.py"))
    assert compat.extras() == {"video": ["av"], "text": ["old"]}
