"""The benchmark runs, reports all results, and its contenders do the same work."""

import json
import os
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch

from benchmarks import encoding, exactness, experts, joint, measure, policies, recovery, report
from benchmarks import official as theirs
from benchmarks.cases import CASES, EAGER, FUSED, LENGTHS, MANUAL, PLAIN, cost_cases, gpu_cases, our_model, small
from ebwm.objective import S1


@pytest.mark.slow
def test_every_case_is_measured_and_reported(tmp_path):
    records = [measure.timed(replace(small(case), steps=min(case.steps, 3)), None, 1) for case in CASES]
    assert all(time["median"] > 0 for record in records for time in record["seconds"].values())
    records[0]["memory"] = {PLAIN: 10.0, EAGER: 30.0, MANUAL: 20.0}
    cost = [(axis, value, records[0]) for axis, value, _ in cost_cases()]
    result = {"machine": measure.machine(), "rounds": 1, "cases": records, "cost": cost, "exactness": {}}
    text = report.table(json.loads(json.dumps(result)))
    assert all(name in text for name in (*(case.name for case in CASES), torch.__version__))
    report.plots(result, tmp_path)
    pictures = {path.name for path in tmp_path.iterdir()}
    assert pictures == {"training.png", "training-dark.png", "cost.png", "cost-dark.png"}


def test_cases_for_a_gpu_are_measured_and_a_contender_that_fails_is_named(monkeypatch):
    cases = gpu_cases(LENGTHS, "bf16")
    assert [case.length for case in cases] == [16, 256, 1024, 4096]
    monkeypatch.setattr(measure, "can_be_fused", lambda device, width: True)
    case = replace(small(cases[0]), contenders=(PLAIN, EAGER, MANUAL, FUSED), device="cpu")
    monkeypatch.setattr("ebwm.ebt.can_be_fused", raising_memory_error)
    record = measure.on_gpu(case, None, 1)
    assert list(record["seconds"]) == [PLAIN, EAGER, MANUAL] and record["failed"] == {FUSED: "out of memory"}
    record["differences"] = exactness.on_device(case, [MANUAL])
    assert 0 < record["differences"][MANUAL] < 1e-5
    record["utilisation"] = {PLAIN: 0.5, MANUAL: 0.25}
    result = {"machine": measure.machine(), "rounds": 1, "cases": [record], "cost": [], "exactness": {}}
    text = report.table(json.loads(json.dumps(result)))
    assert "S = 16, bf16, fused: out of memory" in text and "25.0%" in text and "S = 16, bf16, manual: " in text


def raising_memory_error(device, width):
    raise torch.OutOfMemoryError("out of memory\nmore")


def test_utilisation_is_left_out_for_an_unknown_gpu():
    assert measure.peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert measure.peak("NVIDIA A100-SXM4-80GB", "float32") == 19.5e12
    assert measure.peak("NVIDIA H100 NVL", "bf16") is None


def test_contenders_have_the_same_weights_and_losses():
    case = small(CASES[0])
    states, targets, start = torch.randn(3, 2, 5, case.dim, generator=torch.Generator().manual_seed(0))
    losses = [S1(2)(our_model(case, gradient=kind), states, targets, start=start).item()
              for kind in ("eager", "handwritten")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_lower_bound_agrees_with_counted_flops():
    case = replace(CASES[0], contenders=(PLAIN, MANUAL))
    found = measure.timed(replace(case, dim=64, heads=2), None, 1)
    counted = found["flops"]
    assert counted[MANUAL] / counted[PLAIN] == pytest.approx(found["bound"], rel=0.005)
    assert counted == pytest.approx(replace(case, dim=64, heads=2).flops, rel=0.005)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory cannot be reset")
def test_memory_is_measured_in_a_separate_process():
    found = measure.memory(0, "smoke", 1, [MANUAL])
    assert 0 <= found[MANUAL] < 2_000


@pytest.mark.skipif("OFFICIAL_EBT" not in os.environ, reason="OFFICIAL_EBT is not set")
def test_results_equal_those_of_the_official_code():
    found = exactness.table(theirs.load())
    assert len(found) == 6
    assert max(value for row in found.values() for value in row.values()) < 1e-10


@pytest.mark.slow
def test_policies_are_measured_on_one_trunk():
    cases = [policies.measured(shape, 1) for shape in policies.SMALL]
    text = policies.table({"machine": measure.machine(), "rounds": 1, "cases": cases})
    assert text.splitlines()[-1].startswith("| mlp | 16 | 1 | ")
    counted = policies.measured(policies.Shape("transformer", 128, 3), 1)["training_flops"]
    share = counted["EBT-Policy"] / counted["cloning"]
    assert 2.3 < share < 3, "(2n + 4) / 3 of the products of the trunk, in n = 2 steps"


def test_experts_are_measured_by_style():
    case = experts.measured("reach", 4)
    assert case["clean"]["successes"] == 4 and case["clean"]["steps"] < case["clumsy"]["steps"]
    nothing = {"successes": 0, "steps": None}
    text = experts.table({"rounds": 4, "cases": [case, {"simulator": "none", "clean": nothing, "clumsy": nothing}]})
    assert text.splitlines()[-2].startswith("| reach | 1.00 (0.51 to 1.00) | ")
    assert text.splitlines()[-1] == "| none | 0.00 (0.00 to 0.49) | – | 0.00 (0.00 to 0.49) | – |"


@pytest.mark.slow
def test_episodes_with_a_fault_are_filmed_and_compared_with_the_record(tmp_path, capsys):
    pytest.importorskip("av", reason="av is not installed: pip install 'ebwm[video]'")
    updates = {f"updates_{kind}": 2 for kind in recovery.KINDS}
    parameters = dict(simulator="reach", faults=["block"], demonstrations=4, episodes=2, seeds=[3], dim=16, depth=1,
                      batch=8, trunk="mlp", **updates)
    trials = {"chosen": {kind: {"learning_rate": 1e-3} for kind in recovery.KINDS}}
    other = dict(seed=3, fault="block", success=False, steps=-1, retries=0)
    recorded = pd.DataFrame([dict(other, model=kind, episode=number) for kind in recovery.KINDS for number in (0, 1)])
    recovery.write(parameters, trials, recorded, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "recovery.jsonl").read_text().splitlines()]
    assert [row["policy"] for row in rows] == [kind for kind in recovery.KINDS for _ in range(2)]
    assert all("seconds" not in chunk for row in rows for chunk in row["chunks"])
    assert (tmp_path / "recovery.md").read_text() in capsys.readouterr().out
    assert "| diffusion | 0 | 0 | 0 of 2 |" in (tmp_path / "recovery.md").read_text()
    recorded = pd.DataFrame([dict(row, seed=3, fault="block", model=row["policy"], episode=row["seed"] % 1000,
                                  success=row["outcome"] == "success") for row in rows])
    recovery.write(parameters, trials, recorded, tmp_path / "again")
    assert (tmp_path / "again/recovery.md").read_text().count("| 2 of 2 |") == len(recovery.KINDS)
    same = (tmp_path / name / "recovery.jsonl" for name in ("", "again"))
    assert len({path.read_text() for path in same}) == 1 and (tmp_path / "recovery.mp4").stat().st_size > 1000


def test_a_joint_ebt_is_measured_beside_its_one_pass_twin():
    cases = [joint.measured(shape, 1) for shape in joint.SMALL]
    assert cases[0]["floor"] > 1 and cases[0]["overhead"] > 0
    text = joint.table({"machine": measure.machine(), "rounds": 1, "cases": cases})
    assert f"| {cases[0]['floor']:.2f} |" in text


@pytest.mark.slow
def test_encoding_is_measured_with_one_process_and_with_two(monkeypatch):
    pytest.importorskip("av", reason="av is not installed: pip install 'ebwm[video]'")
    monkeypatch.setattr(encoding, "write_videos", partial(encoding.write_videos, rate=5))
    case = encoding.measured("smoke", 1)
    assert case["videos"] == 6 and case["gain"] == pytest.approx(case["rates"]["2"][0] / case["rates"]["1"][0])
    text = encoding.table({"machine": measure.machine(), "rounds": 1, "case": case})
    assert f"| 2 | {case['rates']['2'][0]:.2f} | {case['gain']:.2f} |" in text
