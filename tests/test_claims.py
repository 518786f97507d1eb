"""Verdicts on claims, the report, and the papers in the registry. Refusals are in refusals/figures.py."""

import re
from pathlib import Path

import pytest

from ebwm import figures, settings
from ebwm.figures.claims import report, verdict, verdicts
from ebwm.figures.registry import Claim, Planned

ROOT = Path(__file__).parents[1]


CLAIM = Claim(name="c", says="says", source="source")


def decided(expect, result, scale="cpu", **fields):
    """The verdict on a figure with this result on record."""
    manifest = {"scale": scale, "seeds": [0, 1], "results": {"loss": {"best": result}}}
    claim = CLAIM.model_copy(update={"statistic": "loss.best", "expect": expect, **fields})
    return verdict(claim, figures.registry()["tiny"], manifest)


def interval(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


@pytest.mark.parametrize("expect, result, found", [
    ({"below": 0}, interval(-2, -1), "holds"),
    ({"below": 0}, interval(-2, 0), "undecided"),
    ({"below": 0}, 0.0, "fails"),
    ({"above": 0}, 0.0, "fails"),
    ({"above": 0}, interval(1, 2), "holds"),
    ({"above": 0}, interval(-2, -1), "fails"),
    ({"equals": 35, "within": 1}, interval(34.5, 35.5), "holds"),
    ({"equals": 35, "within": 1}, interval(30, 40), "undecided"),
    ({"equals": 35, "within": 1}, interval(36.5, 40), "fails"),
    ({"equals": 35, "within": 1}, 34.0, "holds"),
    ({"equals": 35, "within": 1}, 33.9, "fails"),
    ({"below": 0}, None, "undecided"),
    ({"below": 0}, {"value": None, "low": None, "high": None}, "undecided"),
    ({"below": 0}, {"value": -1.0, "low": None, "high": None}, "undecided"),
])
def test_the_whole_interval_decides_or_the_number(project, expect, result, found):
    assert decided(expect, result).verdict == found


def test_claims_without_a_decision(project):
    stand_in = decided({"below": 0}, -1.0, not_tested="too small", command="ebwm figures run tiny")
    assert stand_in.verdict == "not tested" and stand_in.measured == (-1, -1, -1)
    assert stand_in.record == "scale cpu, seeds 0, 1"
    assert decided({"below": 0}, -1.0, scale="smoke").verdict == "not tested"
    assert verdict(CLAIM, Planned(id="tiny", title="t", paper="p"), None).verdict == "planned"
    assert verdict(CLAIM, figures.registry()["tiny"], None).verdict == "not made"


# This repository's claims


@pytest.fixture
def here():
    return settings.load(ROOT)


def test_every_figure_and_table_of_the_papers_is_listed(here):
    papers = {paper.name: {item.item for item in paper.items} for paper in figures.registry(here).papers}
    numbered = {"4a", "4b", "4c", "5a", "5b", "5c", "6a", "6b", "7", "8", "9a", "9b", "10", "11", "12",
                "B.1a", "B.1b", "B.2", "B.3", "C.1"}
    assert {f"Figure {number}" for number in numbered} | {"Figures 1 to 3"} <= papers["EBT"]
    assert {f"Table {number}" for number in range(1, 5)} <= papers["EBT"]
    assert {"Figure 1", "Figure 2", "Plots x1 to x9", "early_scaling_mcmc_condition",
            "late_scaling_mcmc_condition"} == papers["EBWM"]
    assert {"Efficiency figure", "Uncertainty figure", "Success tables"} <= papers["EBT-Policy"]


def test_every_claim_of_this_repository_is_decided(here):
    known, rows = figures.registry(here), verdicts(here)
    claims = [claim for figure in (known.figures | known.planned).values() for claim in figure.claims]
    assert [row.claim for row in rows] == claims
    assert all(row.verdict != "not made" for row in rows), "promote the figures that have a notebook"
    assert all(re.match(r"ebwm figures run \w+ ", claim.command) for claim in claims if claim.not_tested)
    arithmetic = [row.verdict for row in rows if row.figure == "percent_faster"]
    assert arithmetic == ["holds"] * 9


def test_the_committed_report_is_up_to_date(here):
    written = (ROOT / "figures/report.md").read_text(encoding="utf-8")
    assert written == report(here) + "\n", "run: ebwm figures report --out figures/report.md"
