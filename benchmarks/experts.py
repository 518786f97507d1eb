"""Success rates of the scripted experts, whose episodes are the demonstrations: `python -m benchmarks.experts`.

Each expert acts in the episodes of seeds 0, 1, ..., once as it is and once clumsily, with noise, pauses and detours. An
episode succeeds if the simulator says so within its limit of steps. Results are in figures/benchmarks/experts.json and
experts.md.
"""

from contextlib import closing
from typing import Any

import numpy as np

from benchmarks.measure import machine
from benchmarks.reports import arguments, report
from ebwm.evaluation.statistics import wilson
from ebwm.figures.findings import with_numbers
from ebwm.policy.demonstrations import record
from ebwm.policy.experts import EXPERTS, STYLES
from ebwm.policy.simulators import make_simulator


def measured(
    simulator: str,  # name, as for `make_simulator`
    count: int,  # number of episodes
) -> dict[str, Any]:
    """Successes of an expert by style, and the median number of steps of its successful episodes."""
    found: dict[str, Any] = {"simulator": simulator}
    with closing(make_simulator(simulator)) as made:
        for style in STYLES:
            episodes = [record(made, seed, style) for seed in range(count)]
            steps = [len(episode.actions) for episode in episodes if episode.success]
            found[style] = {"successes": len(steps), "steps": float(np.median(steps)) if steps else None}
    return found


def table(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [f"{result['rounds']} episodes of each expert; 95 % intervals by Wilson. A clumsy expert has noise, pauses "
             "and detours. Steps are medians over successful episodes.", "",
             "| simulator | success | steps | success if clumsy | steps if clumsy |", "| --- " * 5 + "|"]
    for case in result["cases"]:
        cells = [cell for style in STYLES for cell in _cells(case[style], result["rounds"])]
        lines.append(f"| {' | '.join([case['simulator'], *cells])} |")
    return "\n".join(lines) + "\n"


def _cells(found: dict[str, Any], count: int) -> tuple[str, str]:
    rate = with_numbers("{rate:.2f}", {"rate": wilson(found["successes"], count)._asdict()}, "success rate")
    return rate, "–" if found["steps"] is None else f"{found['steps']:g}"


def main() -> None:
    given = arguments("experts", __doc__.splitlines()[0], 40, "each expert: episodes", "the toy `reach` only")
    simulators = ("reach",) if given.size == "smoke" else tuple(EXPERTS)
    cases = [measured(simulator, given.rounds) for simulator in simulators]
    report(given.out, "experts", {"machine": machine(), "rounds": given.rounds, "cases": cases}, table)


if __name__ == "__main__":
    main()
