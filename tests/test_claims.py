"""Verdicts on claims, the pages of results, and the papers in the registry. Refusals are in refusals/figures.py."""

import json
import shlex
from pathlib import Path

import pytest
from scipy import stats
from tiny_figure import YAML, rewrite, write_manifest

from ebwm import cli, figures, settings
from ebwm.figures.claims import UNEQUAL, VERDICTS, Measured, shown, verdict, verdicts
from ebwm.figures.commands import _assignment
from ebwm.figures.ends import End, ends, table_of_ends
from ebwm.figures.findings import with_run
from ebwm.figures.registry import Claim, Gate, Planned, StandIn
from ebwm.figures.report import PAGES, cause, learned, ledger, results
from ebwm.files import write_json

ROOT = Path(__file__).parents[1]


CLAIM = Claim(name="c", says="says", source="source")


def decided(expect, result, scale="cpu", figure=None, fit=None, **fields):
    """The verdict on a figure with this result, and that of a fit, on record."""
    manifest = {"scale": scale, "seeds": [0, 1], "results": {"loss": {"best": result, "fit": fit}}}
    claim = CLAIM.model_copy(update={"statistic": "loss.best", "expect": expect, **fields})
    return verdict(claim, figure or figures.registry()["tiny"], manifest)


def interval(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


@pytest.mark.parametrize("expect, result, found", [
    ({"below": 0}, interval(-2, -1), "reproduced"),
    ({"below": 0}, interval(-2, 0), "undecided"),
    ({"below": 0}, 0.0, "not reproduced"),
    ({"above": 0}, 0.0, "not reproduced"),
    ({"above": 0}, interval(1, 2), "reproduced"),
    ({"above": 0}, interval(-2, -1), "not reproduced"),
    ({"equals": 35, "within": 1}, interval(34.5, 35.5), "reproduced"),
    ({"equals": 35, "within": 1}, interval(30, 40), "undecided"),
    ({"equals": 35, "within": 1}, interval(36.5, 40), "not reproduced"),
    ({"equals": 35, "within": 1}, 34.0, "reproduced"),
    ({"equals": 35, "within": 1}, 33.9, "not reproduced"),
    ({"below": 0}, None, "undecided"),
    ({"below": 0}, {"value": None, "low": None, "high": None}, "undecided"),
    ({"below": 0}, {"value": -1.0, "low": None, "high": None}, "undecided"),
])
def test_the_whole_interval_decides_or_the_number(project, expect, result, found):
    assert decided(expect, result).verdict == found


@pytest.mark.parametrize("seeds, fit, found", [
    (interval(1, 2), interval(0.5, 3), "reproduced"), (interval(1, 2), interval(-1, 4), "undecided"),
    (interval(-2, -1), interval(-3, -1), "not reproduced"), (interval(-2, -1), interval(1, 2), "undecided"),
    (interval(1, 2), None, "undecided")])
def test_all_intervals_of_a_statistic_must_agree(project, seeds, fit, found):
    row = decided({"above": 0}, seeds, fit=fit and fit | {"method": "fit"}, also=("loss.fit",))
    assert row.verdict == found and row.measured[0] == Measured("loss.best", *seeds.values())
    assert len(row.measured) == (1 if fit is None else 2)


@pytest.mark.parametrize("paper, alike, found", [
    (interval(1, 2), interval(0.5, 3), "reproduced"), (interval(1, 2), interval(-1, 4), UNEQUAL),
    (interval(1, 2), interval(-3, -1), UNEQUAL), (interval(1, 2), None, UNEQUAL),
    (interval(-2, -1), interval(1, 2), "not reproduced"), (interval(-1, 2), interval(1, 2), "undecided")])
def test_a_claim_that_needs_unequal_training_has_a_verdict_of_its_own(project, paper, alike, found):
    row = decided({"above": 0}, paper, fit=alike, alike=("loss.fit",))
    assert row.verdict == found and len(row.measured) == 1
    assert row.alike == (() if alike is None else (Measured("loss.fit", *alike.values()),))


@pytest.mark.parametrize("best, found, reason", [
    (interval(1, 2), "reproduced", ""), (interval(4, 6), "undecided", "a loss of 5.0 (4.0 to 6.0), worse than 3.5")])
def test_a_claim_whose_gate_is_closed_is_undecided(project, best, found, reason):
    gate = Gate(needs=("loss.best.high < loss.fit",), otherwise="a loss of {loss.best:.1f}, worse than {loss.fit:.1f}")
    row = decided({"above": 0}, best, fit=3.5, gate=gate)
    assert (row.verdict, row.reason, len(row.measured)) == (found, reason, 1)
    assert cause(row) == reason.partition(" (")[0]
    with pytest.raises(figures.FigureError, match=r"claim 'c': gate: no result 'loss\.worst' on record"):
        decided({"above": 0}, best, gate=gate.model_copy(update={"needs": ("loss.worst < 1",)}))


def test_claims_without_a_measurement(project):
    tiny = figures.registry()["tiny"]
    on_record = {"scale": "cpu", "seeds": [], "results": {}}
    for claim, figure, manifest, reason in [
            (CLAIM, Planned(id="tiny", title="t", paper="p"), None, "its figure is planned"),
            (CLAIM, tiny, None, "its figure is not on record"), (CLAIM, tiny, on_record, "no statistic of the figure"),
            (CLAIM.model_copy(update={"unmeasured": "one size"}), tiny, on_record, "one size")]:
        row = verdict(claim, figure, manifest)
        assert row.verdict == "not measured" and row.reason.startswith(reason) and not row.measured
    smoke = decided({"below": 0}, -1.0, scale="smoke")
    assert smoke.verdict == "not measured" and "scale smoke" in smoke.reason


def test_a_stand_in_decides_nothing_in_the_papers_setting(project):
    tiny = figures.registry()["tiny"]
    assert decided({"below": 0}, -1.0).in_paper == "reproduced"
    stand_in = tiny.model_copy(update={"stand_in": StandIn(here="h", paper="p", missing="m")})
    row = decided({"below": 0}, -1.0, figure=stand_in)
    assert (row.verdict, row.in_paper) == ("reproduced", "not tested")
    assert verdict(CLAIM, Planned(id="later", title="t", paper="p"), None).in_paper == "not tested"


@pytest.mark.parametrize("numbers, text", [
    ((1, 1, 1), "1"), ((1.2345, 1, 2), "1.23 (1 to 2)"), ((3, float("-inf"), float("inf")), "3 (unbounded)"),
    ((2345.6, 0.00012, 45678), "2346 (0.00012 to 45678)")])
def test_a_statistic_is_shown_with_its_interval(numbers, text):
    assert shown(Measured("a", *numbers)) == text


def test_a_setting_is_described_by_the_parameters_on_record():
    effective = {"updates": 40, "batch": 3, "sizes": [[2, 8], [4, 16]]}
    manifest = {"results": {"size": 5}, "parameters": {"effective": effective}}
    text = "{run.updates*run.batch:,.0f} of {run.sizes.0.last:.0f} to {run.sizes.last.last:.0f}, {size:.1f}"
    assert with_run(text, manifest, "here") == "120 of 8 to 16, 5.0"
    for wrong, named in (("{run.steps}", "run.steps"), ("{run.sizes*run.batch}", "a product needs numbers"),
                         ("{run.sizes}", "sentences need numbers")):
        with pytest.raises(figures.FigureError, match=named):
            with_run(wrong, manifest, "here")


# The pages

SOURCE = 'claims: [{name: something, says: "It falls", source: "EBT, Figure 0"}]'
CLAIMED = """stand_in: {here: "{run.updates:.0f} updates", paper: "many < all", missing: "a disk"}
    claims:
      - {name: something, says: "It falls & stops", source: "EBT, Figure 0", statistic: speed, also: [fit],
         measures: "speed of & fall", printed: 3, expect: {above: 0},
         note: {found: "Beside {other:.1f}", holds: ["other > 1"]}, revised: at first above 1,
         command: "ebwm figures run tiny"}
      - {name: sum, says: "Two and two", source: "EBT, Figure 1", about: arithmetic, statistic: other,
         expect: {above: 1}, command: "ebwm figures run tiny"}"""
OTHERS = """
counter_evidence: [{claims: [something], found: "It rises", source: "arXiv:1", link: "https://arxiv.org/abs/1"}]
learned: [{group: Undecided, figure: tiny, found: "It may fall: {speed:.1f}.", holds: ["speed.low > 0"]}]
papers: [{name: EBT, arxiv: "2", items: [{item: F1, shows: speed, figure: tiny}]}]
planned:"""


def test_the_pages_state_what_is_known_of_a_claim(project):
    rewrite(project / YAML, SOURCE, CLAIMED)
    rewrite(project / YAML, "\nplanned:", OTHERS)
    write_manifest(project / "figures/tiny", scale="cpu", seeds=[0, 1], seconds=90, device="cpu", cpu="One",
                   parameters={"effective": {"updates": 7}},
                   results={"speed": interval(1, 2), "fit": interval(-1, 4), "other": 2.0})
    text = " ".join(ledger().split())
    for part in ("1 claims about models. In our setting: 1 undecided. In the papers' own settings: 1 not tested.",
                 "| something | It falls & stops (EBT, Figure 0) | speed of & fall: 1.5 (1 to 2), also (-1 to 4) |",
                 "`speed` = 1.5 (95 % interval 1 to 2), expected above 0; `fit` = 1.5 (95 % interval -1 to 4);",
                 "to 4); the paper's 3 is inside one of them",
                 "Scale cpu, seeds 0, 1, One, 2 min, `ebwm figures run tiny --scale cpu`.", "Note: Beside 2.0.",
                 "Rule changed after a result: at first above 1.",
                 "not tested. Missing: a disk. Closest run: `ebwm figures run tiny`.",
                 "Others: It rises ([arXiv:1](https://arxiv.org/abs/1)).", "1 statements are arithmetic",
                 "Here: 7 updates. The paper: many < all. Missing: a disk.", "| F1 | speed | `tiny` |"):
        assert part in text
    page = results()
    assert '<b class="verdict undecided">undecided</b>' in page and "It falls &amp; stops</span>" in page
    assert "- **Here: undecided.** Speed of & fall: 1.5 (95 % interval 1 to 2), expected above 0; also 1.5 (" in page
    assert "Scale `cpu`, 2 seeds, 2 min over all jobs, One, `ebwm figures run tiny --scale cpu`." in page
    assert '<span class="cause">undecided: the further interval leaves it open</span>' in page
    assert "`other` = 2, no interval, expected above 1" in page
    assert "- **Distance.** Here: 7 updates." in page and page.count("<details") == page.count("</details>") == 2
    assert "## Undecided\n\nIt may fall: 1.5 (1.0 to 2.0) ([tiny](../figures/tiny.ipynb))." in learned()
    rewrite(project / YAML, "speed.low > 0", "speed.low > 1")
    with pytest.raises(figures.FigureError, match=r"'speed\.low > 1' does not hold"):
        learned()


def test_a_sentence_takes_numbers_of_other_figures_by_their_id(project):
    rewrite(project / YAML, "\nplanned:", OTHERS)
    write_manifest(project / "figures/tiny", results={"speed": interval(1, 2)})
    rewrite(project / YAML, "It may fall: {speed:.1f}.", "{other.speed.low:.1f} of {speed.low:.1f}")
    with pytest.raises(figures.FigureError, match=r"no result 'other\.speed\.low' on record"):
        learned()
    write_manifest(project / "figures/other", results={"speed": interval(3, 4)})
    assert "## Undecided\n\n3.0 of 1.0 (" in learned()
    rewrite(project / YAML, "speed.low > 0", "speed.low > other.speed.low")
    with pytest.raises(figures.FigureError, match="does not hold"):
        learned()


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


def test_every_claim_of_this_repository_is_measured_or_says_why_not(here):
    known, rows = figures.registry(here), verdicts(here)
    assert [row.claim for row in rows] == [
        claim for figure in (known.figures | known.planned).values() for claim in figure.claims]
    papers = {paper.name for paper in known.papers}
    for row in rows:
        assert row.claim.source.replace(";", ",").split(",")[0].split()[0] in papers
        assert row.verdict in VERDICTS and row.claim.says.count("  ") == 0
        assert bool(row.claim.measures) == bool(row.claim.statistic), "say in words what the statistic measures"
        assert not row.reason or row.verdict == "not measured" or row.claim.gate, "promote the figures with a notebook"
        assert row.verdict != "not measured" or row.claim.unmeasured
        assert row.claim.about == "arithmetic" or row.in_paper == "not tested"
    arithmetic = [(row.figure.id, row.verdict) for row in rows if row.claim.about == "arithmetic"]
    assert arithmetic == [("percent_faster", "reproduced")] * 9


COMMANDS = sorted({claim.command for figure in figures.registry(settings.load(ROOT)).figures.values()
                   for claim in figure.claims if claim.command})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_beside_a_claim_can_be_planned(here, command):
    """It parses, and names a figure, a scale and parameters of its notebook, which are valid at scale smoke too."""
    program, *words = shlex.split(command)
    assert program == "ebwm"
    options = cli._parser(words).parse_args(words)
    [id] = options.ids
    given = dict(map(_assignment, options.parameters))
    defaults = figures.parameter_defaults(figures.registry(here)[id].notebook)
    assert given.keys() <= defaults.keys() and options.scale == "gpu"
    chosen = {name: value for name, value in given.items() if value != "DIR"}
    for scale in (settings.SCALES[0], options.scale):
        plan = figures.plan(id, scale, chosen, here, means=False, cluster=True)
        assert plan.scale == scale and plan.parameters.keys() <= defaults.keys()


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_pages_are_up_to_date(here, name):
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](here) + "\n", "run: ebwm figures report --write"


def test_the_gain_on_hidden_clips_remains_after_a_correction_for_three_looks():
    """Over both Transformers that the finding names, even at two degrees of freedom, which widen an interval most."""
    recorded = json.loads((ROOT / "figures/thinking/manifest.json").read_text())["results"]
    found = recorded["differences"]["s1"]["occluded"]["thinking_minus_transformer"]
    widened = stats.t.ppf(1 - 0.025 / 3, 2) / stats.t.ppf(1 - 0.025, 2)
    for name in ("transformer", "longer"):
        value, high = found[name]["value"], found[name]["high"]
        assert value + (high - value) * widened < 0


def test_settings_at_an_end_of_their_values_are_listed_with_further_trials(project):
    folder, losses = project / "figures/tiny", {1.0: 3.0, 2.0: 2.0, 4.0: 1.0}
    write_json(folder / "tuning.json", {"trials": [
        {"model": "ebt", "rate": rate, "rule": 7, "valid_loss": loss, "seconds": 1.0}
        for rate, loss in losses.items()]})
    assert ends() == (1, [End("tiny", "ebt", "rate", 4.0, 8.0, None)])
    for again, loss, better in ((4.0, 0.9, True), (4.0, 1.2, False), (4.0, None, False), (2.0, 0.9, False)):
        further = [{"rate": again, "rule": 7, "beyond": "", "valid_loss": 1.1},
                   {"rate": 8.0, "rule": 7, "beyond": "rate", "valid_loss": loss}]
        write_json(folder / "beyond.json", {"trials": {"ebt": further}})
        (row,) = ends().rows
        assert row.losses == (None if again == 2 else (1.1, loss)) and row.better == better
        summary, *table = table_of_ends(ends())
        told = f"lower for {better:d}{', by at most 18 %' * better}. "
        assert told in summary and len(table) == (row.losses is not None)
    assert "Of 1 choices among three values or more, 1" in results()
