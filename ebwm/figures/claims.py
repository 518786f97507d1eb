"""The papers' claims: what each figure measures of them, and the verdict in its setting, which may be a stand-in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ebwm import settings
from ebwm.figures.errors import FigureError
from ebwm.figures.findings import contradicted, result_at, with_numbers
from ebwm.figures.manifest import MANIFEST, load_manifest
from ebwm.figures.notebook import fits
from ebwm.figures.registry import Claim, Figure, Planned, Registry, registry
from ebwm.settings import SCALES, Settings

__all__ = ["UNEQUAL", "VERDICTS", "Measured", "Verdict", "agreed", "expected", "shown", "verdict", "verdicts"]

UNEQUAL = "reproduced, but not trained alike"
VERDICTS = ("reproduced", UNEQUAL, "not reproduced", "undecided", "not measured")
INTERVAL = ("value", "low", "high")
OPEN = {"low": float("-inf"), "high": float("inf")}  # value of a bound that is None


@dataclass(frozen=True)
class Measured:
    """A statistic on record."""

    path: str  # in the manifest's results
    value: float
    low: float  # equal to the value without an interval
    high: float


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim, in the setting on record."""

    claim: Claim  # entry of the registry
    figure: Figure | Planned  # its figure
    verdict: str  # one of VERDICTS
    measured: tuple[Measured, ...] = ()  # the statistic, then further intervals of it
    alike: tuple[Measured, ...] = ()  # the same quantity where both models are trained alike
    reason: str = ""  # why the claim is not measured, or why it is undecided without an interval or by its gate
    manifest: dict[str, Any] | None = None  # on record

    @property
    def in_paper(self) -> str:
        """The verdict in the paper's own setting."""
        stand_in = isinstance(self.figure, Planned) or self.figure.stand_in is not None
        return "not tested" if stand_in else self.verdict


def verdict(
    claim: Claim,  # entry of the registry
    figure: Figure | Planned,  # its figure
    manifest: dict[str, Any] | None,  # manifest on record
) -> Verdict:
    """Decide a claim by the record: by whole intervals, which must agree, else by the number.

    A claim that is reproduced, but not where both models are trained alike, has a verdict of its own. A claim whose gate is
    closed is undecided.
    """
    if reason := _unmeasured(claim, figure, manifest):
        return Verdict(claim, figure, "not measured", reason=reason, manifest=manifest)
    of = lambda paths: [_measured(path, claim, figure.id, manifest["results"]) for path in paths]
    found, alike = of((claim.statistic, *claim.also)), tuple(item for item in of(claim.alike) if item is not None)
    measured = tuple(item for item in found if item is not None)
    if len(measured) < len(found):
        reason = "the statistic is left open, as an interval over one seed is"
        return Verdict(claim, figure, "undecided", measured, alike, reason, manifest)
    if reason := _closed(claim, manifest["results"]):
        return Verdict(claim, figure, "undecided", measured, alike, reason, manifest)
    name = agreed(claim, measured)
    if name == "reproduced" and claim.alike and agreed(claim, alike) != name:
        name = UNEQUAL
    return Verdict(claim, figure, name, measured, alike, manifest=manifest)


def agreed(
    claim: Claim,  # entry of the registry
    measured: Sequence[Measured],  # statistics on record
) -> str:  # one of VERDICTS
    """The verdict on which all intervals agree."""
    decided = {_decided(claim.expect, item.low, item.high) for item in measured}
    return decided.pop() if len(decided) == 1 else "undecided"


def _unmeasured(claim: Claim, figure: Figure | Planned, manifest: dict[str, Any] | None) -> str:
    """Why a claim is not measured; empty if it is."""
    if isinstance(figure, Planned):
        return claim.unmeasured or "its figure is planned"
    if manifest is None:
        return "its figure is not on record"
    if manifest["scale"] == SCALES[0]:
        return f"the record is at scale {SCALES[0]}, whose numbers mean nothing"
    if not claim.statistic:
        return claim.unmeasured or "no statistic of the figure answers it"
    return ""


def _closed(claim: Claim, results: dict[str, Any]) -> str:
    """Why the statistic says nothing of the claim; empty if it does."""
    where = f"claim {claim.name!r}: gate"
    if claim.gate and any(contradicted(claim.gate.needs, results, where)):
        return with_numbers(claim.gate.otherwise, results, where)
    return ""


def _measured(path: str, claim: Claim, id: str, results: dict[str, Any]) -> Measured | None:
    """A statistic of a claim; None if the figure has no value, as for an interval over one seed."""
    found = result_at(path, results, f"claim {claim.name!r}, figure {id!r}")
    known = found if isinstance(found, dict) else dict.fromkeys(INTERVAL, found)
    if known.get("value", "") is None:
        return None
    numbers = [OPEN[name] if known.get(name, "") is None else known.get(name) for name in INTERVAL]
    if not all(fits(number, 0.0) for number in numbers):
        raise FigureError(f"claim {claim.name!r}: result {path!r} of figure {id!r} is {found!r}; "
                          "it must be a number, or have value, low and high")
    return Measured(path, *numbers)


def _decided(expect: dict[str, float], low: float, high: float) -> str:
    """The verdict on an interval, given the expectation."""
    if "below" in expect:
        inside, outside = high < expect["below"], low >= expect["below"]
    elif "above" in expect:
        inside, outside = low > expect["above"], high <= expect["above"]
    else:
        least, most = expect["equals"] - expect["within"], expect["equals"] + expect["within"]
        inside, outside = least <= low and high <= most, high < least or low > most
    return "reproduced" if inside else "not reproduced" if outside else "undecided"


def verdicts(
    config: Settings | None = None,  # default: the settings in effect
) -> list[Verdict]:  # in the order of the registry
    """Decide all claims of the registry."""
    config = config or settings.load()
    known = registry(config)
    return [verdict(claim, figure, manifest)
            for figure, manifest in _recorded(known, config) for claim in figure.claims]


def _recorded(known: Registry, config: Settings) -> Iterator[tuple[Figure | Planned, dict[str, Any] | None]]:
    for id, figure in (known.figures | known.planned).items():
        path = config.figures / id / MANIFEST
        yield figure, load_manifest(path.parent) if path.is_file() else None


# Words


def shown(
    measured: Measured,  # a statistic
) -> str:
    """A number, with its interval if it has one."""
    value, low, high = map(_three_digits, (measured.value, measured.low, measured.high))
    if measured.low == measured.high:
        return value
    if measured.low == OPEN["low"] and measured.high == OPEN["high"]:
        return f"{value} (unbounded)"
    return f"{value} ({low} to {high})"


def _three_digits(number: float) -> str:
    """Three significant digits; large numbers as integers."""
    return f"{number:.0f}" if 1000 <= abs(number) < float("inf") else f"{number:.3g}"


def expected(
    expect: dict[str, float],  # expectation of a claim
) -> str:
    """The expectation of a claim, in words."""
    if "equals" in expect:
        margin = f" ± {expect['within']:g}, a margin of ours" if expect["within"] else ""
        return f"{expect['equals']:g}{margin}"
    return ", ".join(f"{name} {bound:g}" for name, bound in expect.items())
