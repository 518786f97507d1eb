"""Demonstrations: episodes of experts, with a digest."""

import functools
import hashlib
import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ebwm.checks import one_of, whole
from ebwm.policy.experts import STYLES, make_expert
from ebwm.policy.simulators import Simulator, make_simulator
from ebwm.usage import Failure, UsageError

__all__ = ["Demonstrations", "Episode", "collect", "record"]

SEEDS = 10_000  # simulator seeds of one seed of `collect`


class Episode(NamedTuple):
    """One episode: the observation before each action, and the action."""

    observations: dict[str, np.ndarray]  # "state" [steps state_dim] float32, "image" [steps size size 3] uint8, or both
    actions: Float[np.ndarray, "steps action_dim"]  # float32, in [-1, 1]
    success: bool
    seed: int  # of the simulator
    language: Float[np.ndarray, "vectors features"] | None = None  # float32, the instruction; any number of vectors


@dataclass(frozen=True)
class Demonstrations:
    """Episodes of one simulator."""

    simulator: str  # name, as for `make_simulator`
    episodes: list[Episode]
    failed: int = 0  # episodes that the expert failed and that were left out

    @property
    def digest(self) -> str:
        """SHA-256 of all arrays, the same for the same bytes."""
        found = hashlib.sha256(self.simulator.encode())
        for episode in self.episodes:
            spoken = [] if episode.language is None else [("language", episode.language)]
            for name, array in [*sorted(episode.observations.items()), ("actions", episode.actions), *spoken]:
                found.update(f"{name} {array.dtype.str} {array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


def collect(
    simulator: str,  # name, as for `make_simulator`
    episodes: int,  # number of successful episodes
    seed: int = 0,  # fixes initial states and the expert's variations
    style: str = "clean",  # "clean" | "clumsy": noise, pauses and detours
    workers: int = 1,  # processes
    image: int | None = None,  # pixels along each side of the images in observations; None: no images
) -> Demonstrations:
    """Record a scripted expert; failed episodes are counted and left out.

    Episode i has the simulator's and the expert's seed `10_000 * seed + i`; the result is the same for any number of
    workers.
    """
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("workers", workers, 1)):
        whole(name, value, least, most=SEEDS // 2)
    one_of("style", style, STYLES, UsageError)
    make_expert(simulator)
    seeds = range(SEEDS * seed, SEEDS * seed + min(SEEDS, 10 * episodes + 10))
    kept, failed = [], 0
    with _attempts(simulator, style, image, seeds, workers) as attempts:
        for episode in attempts:
            kept, failed = ([*kept, episode], failed) if episode.success else (kept, failed + 1)
            if len(kept) == episodes:
                return Demonstrations(simulator, kept, failed)
    raise Failure(f"the {style} expert of {simulator!r} succeeded in {len(kept)} of {len(seeds)} episodes; "
                  f"episodes={episodes} needs more")


@contextmanager
def _attempts(simulator: str, style: str, image: int | None, seeds: range, workers: int) -> Iterator[Iterator[Episode]]:
    """Episodes in the order of their seeds, recorded in this process or in several."""
    options = {} if image is None else {"image": image}
    if workers == 1:
        with closing(make_simulator(simulator, **options)) as made:
            yield (record(made, seed, style) for seed in seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _open, (simulator, options)) as pool:
        parts = (seeds[start:start + 4 * workers] for start in range(0, len(seeds), 4 * workers))
        try:
            yield itertools.chain.from_iterable(pool.map(functools.partial(_record, style), part) for part in parts)
        except BrokenProcessPool as error:
            raise Failure(f"a process of {simulator!r} stopped: run it with workers=1 to see why") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def record(
    simulator: Simulator,
    seed: int,  # of the simulator and of the expert
    style: str = "clean",  # of the expert
) -> Episode:
    """One episode of a simulator's expert; it ends at its first success."""
    expert = make_expert(simulator.name, seed, style)
    observation, success = simulator.reset(seed), False
    observations, actions = [], []
    expert.reset()
    for _ in range(simulator.limit):
        actions.append(np.asarray(expert.act(observation), np.float32))
        observations.append(observation)
        observation, success = simulator.step(actions[-1])
        if success:
            break
    stacked = {name: np.stack([each[name] for each in observations]) for name in observation}
    return Episode(stacked, np.stack(actions), success, seed)


def _open(simulator: str, options: dict[str, int]) -> None:
    """Make the simulator of a worker."""
    _record.simulator = make_simulator(simulator, **options)


def _record(style: str, seed: int) -> Episode:
    return record(_record.simulator, seed, style)
