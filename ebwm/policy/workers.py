"""Episodes in processes of their own, so that a process that ends costs no more than the episodes that ran in it."""

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from ..checks import refusal
from ..usage import Failure, UsageError
from .rollout import Actor, EpisodeResult, run_episodes
from .simulators import Disturbance, Simulator, make_simulator

__all__ = ["Setting", "in_processes", "in_this_process"]

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


@dataclass(frozen=True)
class Setting:
    """What is evaluated, and how."""

    policy: Actor | Callable[[], Actor] | Path | str  # a policy, a function that makes it, or the folder of a run
    simulator: str | Callable[[], Simulator]  # its name, or a function that makes it
    disturbance: Disturbance | None = None  # the same for every policy
    options: dict[str, Any] = field(default_factory=dict)  # of a simulator that is named
    trace: bool = False  # keep states and actions

    def make_policy(self) -> Actor:
        """The policy."""
        if isinstance(self.policy, str | Path):
            from .policies import load_policy

            return load_policy(Path(self.policy))
        return self.policy if hasattr(self.policy, "select_action") else self.policy()

    def make_simulator(self) -> Simulator:
        """A new simulator."""
        named = isinstance(self.simulator, str)
        return make_simulator(self.simulator, **self.options) if named else self.simulator()


class Stage:
    """A policy, and as many simulators as episodes run side by side."""

    def __init__(self, setting: Setting):
        self.setting, self.policy, self.simulators = setting, setting.make_policy(), []

    def run(self, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Run a batch of episodes; simulators that failed are closed, and replaced by the next batch."""
        self.simulators += [self.setting.make_simulator() for _ in range(len(seeds) - len(self.simulators))]
        used = self.simulators[:len(seeds)]
        results = run_episodes(self.policy, used, seeds, self.setting.disturbance, self.setting.trace)
        crashed = [simulator for simulator, result in zip(used, results, strict=True) if result.outcome == "crashed"]
        for simulator in crashed:
            with contextlib.suppress(Exception):
                simulator.close()
        self.simulators = [simulator for simulator in self.simulators if simulator not in crashed]
        return results

    def close(self) -> None:
        """Release the simulators."""
        for simulator in self.simulators:
            simulator.close()


def in_this_process(
    setting: Setting,  # what is evaluated
    jobs: Sequence[Sequence[int]],  # seeds of the episodes that run side by side
) -> Iterator[list[EpisodeResult]]:  # of each job
    """Run episodes one job after the other; a simulator that fails ends this process."""
    stage = Stage(setting)
    try:
        yield from map(stage.run, jobs)
    finally:
        stage.close()


def in_processes(
    setting: Setting,  # what is evaluated; it must be possible to pickle it
    jobs: Sequence[Sequence[int]],  # seeds of the episodes that run side by side
    workers: int,  # largest number of processes
) -> Iterator[list[EpisodeResult]]:  # of each job, as they finish
    """Run episodes in processes; the episodes of a process that exits are crashed, and another one takes its place."""
    payload, waiting, running = _packed(setting), deque(jobs), {}
    try:
        while waiting or any(worker.job for worker in running.values()):
            idle = len(waiting) - sum(worker.job is None for worker in running.values())
            for _ in range(min(workers - len(running), idle)):
                worker = Worker(payload)
                running[worker.pipe] = worker
            for pipe in wait(list(running)):
                yield from _answer(running, pipe, waiting)
    finally:
        for worker in running.values():
            worker.stop()


def _answer(running: dict[Connection, "Worker"], pipe: Connection, waiting: deque) -> Iterator[list[EpisodeResult]]:
    """Handle what a worker says: it is ready, a job is done, it refuses; or it has exited."""
    worker = running[pipe]
    try:
        kind, value = pipe.recv()
    except (EOFError, OSError):
        del running[pipe]
        code = worker.stop()
        if not worker.ready:
            raise Failure(f"workers: a process ended before its first episode (exit code {code}); "
                          "find the reason with workers=0") from None
        message = f"the process of the simulator ended (exit code {code})"
        yield [EpisodeResult(seed, "crashed", 0, message=message) for seed in worker.job or ()]
        return
    if kind == "refused":
        raise value
    worker.ready = True
    if kind == "done":
        yield value
    worker.begin(waiting.popleft() if waiting else None)


class Worker:
    """A process that runs jobs, and this end of its pipe."""

    def __init__(self, payload: bytes):
        context = multiprocessing.get_context(METHOD)
        if METHOD == "forkserver":
            context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
        self.pipe, other = context.Pipe()
        self.job: Sequence[int] | None = None
        self.ready = False  # whether it has answered
        self.process = context.Process(target=_serve, args=(other, payload, dict(os.environ)), daemon=True)
        self.process.start()
        other.close()  # the end of the process is then the end of the pipe

    def begin(self, job: Sequence[int] | None) -> None:
        """Send a job; None: there is none left."""
        self.job = job
        if job is not None:
            with contextlib.suppress(OSError):  # its end is then read from the pipe
                self.pipe.send(job)

    def stop(self) -> int | None:  # the exit code
        """End the process."""
        self.pipe.close()
        self.process.join(1)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        return self.process.exitcode


def _packed(setting: Setting) -> bytes:
    """The setting as bytes; tensors go by value, because shared memory is small in many containers."""
    try:
        return pickle.dumps(setting)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        remedy = "give functions of a module, the folder of a run, or workers=0"
        raise refusal("policy", type(setting.policy).__name__, f"cannot be sent to a process ({reason})", remedy,
                      UsageError) from error


def _serve(pipe: Connection, payload: bytes, environment: dict[str, str]) -> None:
    """The work of a process: jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the process that started this one
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        stage = Stage(pickle.loads(payload))
        pipe.send(("ready", None))
        while True:
            pipe.send(("done", stage.run(pipe.recv())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        pipe.send(("refused", _sendable(error)))


def _sendable(error: Exception) -> Exception:
    """An exception that the other process can read."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
