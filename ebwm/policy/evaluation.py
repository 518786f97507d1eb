"""Success rates of policies: paired episodes in parallel processes, kept in a file, with intervals."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..checks import refusal, whole
from ..evaluation.statistics import Interval, Numbers, paired_rates, student_crossed, wilson
from ..training.checkpoint import locked
from ..usage import UsageError
from .fingerprints import fingerprint
from .rollout import Actor, EpisodeResult
from .simulators import Disturbance, Simulator
from .workers import Setting, in_processes, in_this_process

__all__ = ["EPISODES", "FIRST_SEED", "BestKept", "Summary", "best_kept", "evaluate_policy", "evaluation_seeds",
           "fingerprint", "read_episodes", "success_difference", "summarise"]

EPISODES = "episodes.jsonl"  # file of results in the folder of an evaluation
GROUP = "group"  # entry of a row: seeds of the episodes that ran side by side
FIRST_SEED = 100_000_000  # of evaluations: above those of demonstrations, seed * 10,000 + episode


def evaluation_seeds(
    episodes: int,  # number of them
    first: int = FIRST_SEED,  # the first
) -> list[int]:
    """Seeds of initial states that no demonstration has."""
    whole("episodes", episodes)
    whole("first", first, 0)
    return list(range(first, first + episodes))


def evaluate_policy(
    policy: Actor | Callable[[], Actor] | Path | str,  # a policy, a function that makes it, or the folder of a run
    simulator: str | Callable[[], Simulator],  # its name, or a function that makes it
    seeds: Sequence[int],  # of the episodes, all different
    *,
    disturbance: Disturbance | None = None,  # the same for every policy
    workers: int = 1,  # processes; 0: none, and a simulator that fails ends this one
    batch: int = 1,  # episodes side by side, on which the policy acts as a batch
    folder: Path | str | None = None,  # results are kept in its file EPISODES, where a later call continues
    options: dict[str, Any] | None = None,  # of the simulator
    trace: bool = False,  # keep states and actions
    report: Callable[[EpisodeResult], None] | None = None,  # called with each episode that has ended
) -> list[EpisodeResult]:  # in the order of the seeds
    """Run episodes of a policy.

    Results are paired: an episode's initial state, and the random numbers of the observations and of the policy, depend on
    its seed alone, whatever the policy and the number of workers; the unit of the observations' noise is the policy's own
    standard deviation of states. With `batch` above 1, the noise of the policy depends
    on the first seed of each group of as many seeds instead, and a simulator that ends its process costs the group.
    Episodes of a folder that a crash of the simulator ended run again.

    Raises `UsageError` for a folder with episodes of other settings, `CheckpointError` for one that another evaluation
    uses, and `Failure` if the processes cannot start.
    """
    _check(seeds, workers, batch)
    seeds = list(map(int, seeds))
    setting = Setting(policy, simulator, disturbance or Disturbance(), options or {}, trace)
    groups = [seeds[start:start + batch] for start in range(0, len(seeds), batch)]
    with nullcontext() if folder is None else _held(Path(folder)):
        found = {} if folder is None else _resume(Path(folder) / EPISODES, _facts(setting, batch), groups)
        jobs = [group for group in groups if not found.keys() >= set(group)]
        for results in in_processes(setting, jobs, workers) if workers else in_this_process(setting, jobs):
            if folder is not None:
                _append(Path(folder) / EPISODES, [_row(result, [one.seed for one in results]) for result in results])
            found |= {result.seed: result for result in results}
            for result in results if report else ():
                report(result)
    return [found[seed] for seed in seeds]


def _check(seeds: Sequence[int], workers: int, batch: int) -> None:
    whole("len(seeds)", len(seeds))
    for number, seed in enumerate(seeds):
        whole(f"seeds[{number}]", seed, 0, 2**31 - 1)
    if (repeated := next((seed for seed in seeds if list(seeds).count(seed) > 1), None)) is not None:
        raise refusal("seeds", repeated, "must all be different", error=UsageError)
    whole("workers", workers, 0, 1024)
    whole("batch", batch)


# The file of results


def _held(folder: Path) -> AbstractContextManager:
    """Lock a folder of results, unless it can only be read."""
    return nullcontext() if folder.is_dir() and not os.access(folder, os.W_OK) else locked(folder)


def _facts(setting: Setting, batch: int) -> dict[str, Any]:
    """The settings that results depend on, as JSON; the seeds are not among them, so that more can be added."""
    simulator = setting.simulator
    facts = dict(
        policy=fingerprint(setting.policy if isinstance(setting.policy, str | Path) else setting.make_policy()),
        simulator=simulator if isinstance(simulator, str) else getattr(simulator, "__qualname__", repr(simulator)),
        options=setting.options, disturbance=dataclasses.asdict(setting.disturbance), batch=batch, trace=setting.trace)
    return json.loads(json.dumps(facts, default=repr))


def _row(result: EpisodeResult, group: Sequence[int]) -> dict[str, Any]:
    """An episode as JSON, with the seeds of the episodes that it ran beside, on which its noise depends."""
    return dataclasses.asdict(result) | ({GROUP: list(group)} if len(group) > 1 else {})


def _resume(path: Path, facts: dict[str, Any], groups: Sequence[Sequence[int]]) -> dict[int, EpisodeResult]:
    """Episodes of an earlier call that ran in the same groups and did not crash, by seed.

    A last line that was cut off is dropped, and a new file gets its header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _whole_lines(path)
    if path.is_file() and path.stat().st_size > len(kept):
        os.truncate(path, len(kept))
    if not kept:
        _append(path, [{"settings": facts, "digest": _digest(facts)}])
    header, rows = _read_rows(path)
    if header.get("digest") != _digest(facts):
        known = header.get("settings", {})
        other = [name for name in facts if known.get(name) != facts[name]]
        rule = f"holds episodes of other settings ({', '.join(other) or 'digest'})"
        raise refusal("folder", str(path.parent), rule, "choose another folder, or delete the file in it", UsageError)
    wanted = {seed: list(group) for group in groups for seed in group}
    return {seed: result for seed, (result, group) in rows.items()
            if wanted.get(seed) == group and result.outcome != "crashed"}


def _whole_lines(path: Path) -> bytes:
    """The lines of a file, if there is one, without a last line that a kill cut off."""
    content = path.read_bytes() if path.is_file() else b""
    return content[:content.rfind(b"\n") + 1]


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add lines in one write, so that a kill cuts off at most the last of them."""
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with open(path, "a", encoding="utf-8") as file:
        file.write(lines)


def read_episodes(
    path: Path,  # file of an evaluation
) -> tuple[dict[str, Any], list[EpisodeResult]]:  # its header: "settings" and their "digest"; and its episodes
    """Read the file of an evaluation: the last row of each seed, without a last line that was cut off.

    A group of episodes that was interrupted runs again as a whole, which adds a second row of its seeds. An empty file
    has no settings and no episodes.
    """
    header, rows = _read_rows(path)
    return header, [result for result, _ in rows.values()]


def _read_rows(path: Path) -> tuple[dict[str, Any], dict[int, tuple[EpisodeResult, list[int]]]]:
    """The header, and the last row of each seed with the seeds of its group."""
    if not Path(path).is_file():
        raise refusal("path", str(path), "no such file of episodes", "make it with `ebwm policy evaluate`", UsageError)
    rows, names = [], {field.name for field in dataclasses.fields(EpisodeResult)}
    for number, line in enumerate(_whole_lines(Path(path)).splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append(_episode(row) if rows else row)
        except (ValueError, TypeError, AttributeError) as error:
            rule = f"line {number} is no episode ({error})"
            raise refusal("path", str(path), rule, f"delete this line; an episode has {sorted(names)}", UsageError) from None
    header, *results = rows or [{"settings": {}}]
    if not (isinstance(header, dict) and "settings" in header):
        raise refusal("path", str(path), "line 1 must hold the settings", "delete the file", UsageError)
    return header, {result.seed: (result, group) for result, group in results}


def _episode(row: dict[str, Any]) -> tuple[EpisodeResult, list[int]]:
    """An episode of a file, and the seeds of its group."""
    group = row.pop(GROUP, None)
    result = EpisodeResult(**row)
    return result, group or [result.seed]


# Statistics


class Summary(NamedTuple):
    """Scores of episodes; means over chunks are None without chunks that report them.

    Chunks of episodes that ran as a batch have means over the batch, as `Policy.predict_action_chunk` reports them.
    """

    episodes: int
    rate: Interval  # of success, by Wilson; errors and crashes are no successes
    errors: int  # of the policy
    crashed: int  # of the simulator
    steps: float | None  # of successful episodes, mean
    retries: float  # of an episode, mean
    sampling_steps: float | None  # of a chunk, mean
    evaluations: float | None  # of a chunk, mean
    milliseconds: float | None  # of one prediction, for all episodes of a batch together, median

    def __str__(self) -> str:
        value, low, high = self.rate
        shown = {
            f"success {value:.2f} (95 % interval {low:.2f} to {high:.2f}) in {{}} episodes": self.episodes,
            "{} ended by an error of the policy": self.errors or None,
            "{} crashed": self.crashed or None,
            "{:.0f} steps to success": self.steps,
            "{:.2f} retries an episode": self.retries,
            "{:.1f} sampling steps a chunk": self.sampling_steps,
            "{:.1f} evaluations a chunk": self.evaluations,
            "{:.1f} ms a chunk": self.milliseconds,
        }
        return ", ".join(text.format(number) for text, number in shown.items() if number is not None)


def summarise(
    results: Sequence[EpisodeResult],  # at least 1
) -> Summary:
    """Scores of episodes."""
    outcomes, chunks = [result.outcome for result in results], [c for result in results for c in result.chunks]
    steps = [result.steps for result in results if result.success]
    found = {name: [chunk[name] for chunk in chunks if chunk.get(name) is not None]
             for name in ("steps", "evaluations", "seconds")}
    mean = lambda values: float(np.mean(values)) if values else None
    return Summary(
        len(results), wilson(outcomes.count("success"), len(results)), outcomes.count("error"),
        outcomes.count("crashed"), mean(steps), float(np.mean([result.retries for result in results])),
        mean(found["steps"]), mean(found["evaluations"]),
        1000 * float(np.median(found["seconds"])) if found["seconds"] else None)


def success_difference(
    ours: Sequence[Sequence[EpisodeResult]],  # for each seed of training, the episodes
    theirs: Sequence[Sequence[EpisodeResult]],  # of another policy, trained and evaluated with the same seeds
    level: float = 0.95,  # confidence level
) -> Interval:  # of the success rate of ours less that of theirs
    """Paired difference of success rates, with the interval of Agresti and Min (2005) over all episodes; of several seeds
    the wider bounds of it and of Student's interval over seeds and episodes, which has width zero if all differ alike."""
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if [result.seed for result in one] != [result.seed for result in other]:
            raise refusal(f"theirs[{number}]", [result.seed for result in other], "must have the seeds of ours, in their order")
    one, other = (np.array([[result.success for result in row] for row in rows]) for rows in (ours, theirs))
    pooled = paired_rates(one.ravel(), other.ravel(), level)
    if len(one) == 1:
        return pooled
    crossed = student_crossed(one.astype(float) - other, level)
    return Interval(crossed.value, max(min(crossed.low, pooled.low), -1.0), min(max(crossed.high, pooled.high), 1.0))


class BestKept(NamedTuple):
    """Success rates as they would be reported."""

    final: float  # of the final weights, mean over seeds
    best: float  # of each seed's best evaluation, mean over seeds
    gain: float  # best - final: what the choice alone adds


def best_kept(
    rates: Sequence[Numbers] | Numbers,  # [seeds, evaluations] in their order; or [evaluations] of one seed
) -> BestKept:
    """What reporting the best of several evaluations gives, beside the last one."""
    array = np.atleast_2d(np.asarray(rates, dtype=np.float64))
    if array.ndim != 2 or not array.size:
        raise refusal("rates.shape", list(np.shape(rates)), "must be [seeds, evaluations]")
    if not ((array >= 0) & (array <= 1)).all():
        raise refusal("rates", float(array.flat[np.argmax(~((array >= 0) & (array <= 1)))]), "must be from 0 to 1")
    final, best = float(array[:, -1].mean()), float(array.max(1).mean())
    return BestKept(final, best, best - final)
