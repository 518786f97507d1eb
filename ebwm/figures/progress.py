"""Progress of a batch: finished jobs, the last output of running jobs, and the remaining time."""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.std import tqdm

from ebwm.figures.plan import Job

__all__ = ["Progress", "duration", "last_line", "share_done", "status_of", "time_left"]

DONE = ("made", "failed")
SMALLEST_SHARE = 0.02  # of a job, from which on its own progress bar is used
HEARTBEAT = 20  # seconds between lines where there is no terminal
LINE = "{n_fmt} of {total_fmt} jobs |{bar:16}| {elapsed}{postfix}"


class Progress:
    """Reports a line for each finished job; a progress bar in a terminal, else a line at least every 20 seconds."""

    def __init__(
        self,
        folder: Path,  # folder of the batch
        jobs: Sequence[Job],  # jobs of the batch
        count: int,  # cores in use
        report: Callable[[str], None] | None = None,  # receives the lines; default: print to stderr
    ):
        self.folder, self.jobs, self.count = folder, jobs, count
        hidden = report is not None or not sys.stderr.isatty()
        self.bar = tqdm(total=len(jobs), bar_format=LINE, disable=hidden, leave=False)
        self.report = report or (lambda line: tqdm.write(line, file=sys.stderr))
        self.states: dict[str, dict[str, Any]] = {}
        self.reported = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self) -> None:
        """Read the status of the jobs, and report changes."""
        ended, clock = [], time.time()
        for job in self.jobs:
            before, now = self.states.get(job.name, {}), status_of(self.folder, job)
            self.states[job.name] = {**before, **now}
            if now.get("state") == "running":
                line = last_line(self.folder / "logs" / f"{job.name}.log")
                self.states[job.name] |= {"line": line, "share": share_done(line)}
            if now.get("state") in DONE and before.get("state") not in DONE:
                self.states[job.name]["seconds"] = clock - (before.get("started") or clock)
                ended.append(job)
        for job in ended:
            self._end(job)
        self._move()

    def _end(self, job: Job) -> None:
        state, done = self.states[job.name], sum(self._done(job) for job in self.jobs)
        self.bar.update()
        left = f", {self._left()} left" if done < len(self.jobs) else ""
        self._say(f"{job.name}: {state['state']}, {duration(state['seconds'])}; {done} of {len(self.jobs)} jobs{left}")

    def _say(self, line: str) -> None:
        self.report(line)
        self.reported = time.monotonic()

    def _done(self, job: Job) -> bool:
        return self.states[job.name].get("state") in DONE

    def _left(self) -> str:
        return f"about {duration(time_left(self.jobs, self.states, self.count, time.time()))}"

    def _move(self) -> None:
        running = [job.name for job in self.jobs if self.states[job.name].get("state") == "running"]
        line = f"{running[0]}: {self.states[running[0]]['line'] or 'no output yet'}" if running else "waiting"
        self.bar.set_postfix_str(f"{self._left()} left  {line}"[:90])
        if self.bar.disable and time.monotonic() - self.reported >= HEARTBEAT:
            self._say(f"{line}; {len(running)} running, {self._left()} left")


def status_of(
    folder: Path,  # folder of a batch
    job: Job,  # one of its jobs
) -> dict[str, Any]:  # state, and a message after a failure; empty before the start
    """The last status of a job."""
    path = folder / "status" / f"{job.name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def time_left(
    jobs: Sequence[Job],  # jobs of the batch
    states: Mapping[str, dict[str, Any]],  # by name of the job: state, started, seconds, share
    count: int,  # cores in use
    now: float,  # present time, seconds, on the clock of `started`
) -> float:  # seconds
    """Estimated time of the unfinished jobs, scaled by the ratio of measured to expected time so far.

    The progress bar of a running job counts as far as it has come.
    """
    done = [job for job in jobs if states.get(job.name, {}).get("state") in DONE]
    open_ = [job for job in jobs if job not in done]
    timed = [(60 * job.minutes, states[job.name].get("seconds", 0)) for job in done]
    timed += [(60 * job.minutes * state["share"], now - state["started"])
              for job in open_ if (state := states.get(job.name, {})).get("share", 0) >= SMALLEST_SHARE]
    expected = sum(minutes for minutes, _ in timed)
    slower = sum(seconds for _, seconds in timed) / expected if expected else 1.0
    needed = [_needed(job, states.get(job.name, {}), slower, now) for job in open_]
    side_by_side = max(1, min(count // max((job.threads for job in open_), default=1), len(open_)))
    return max(sum(needed) / side_by_side, max(needed, default=0.0))


def _needed(job: Job, state: Mapping[str, Any], slower: float, now: float) -> float:
    whole = 60 * job.minutes * slower
    ran = 0.0 if state.get("started") is None else now - state["started"]
    if state.get("share", 0) >= SMALLEST_SHARE:
        return ran * (1 / state["share"] - 1)
    return max(whole - ran, 0.1 * max(whole, ran))


def last_line(
    path: Path,  # path of a log
) -> str:
    """The last line of a log that is not empty, within its last 4 KiB."""
    if not path.is_file():
        return ""
    with open(path, "rb") as log:
        log.seek(max(0, path.stat().st_size - 4096))
        lines = log.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def share_done(
    line: str,  # of the output of a job
) -> float:  # from 0 to 1
    """How far the progress bar in a line has come; 0 without one."""
    found = re.search(r"(\d{1,3})%\|", line)
    return min(int(found[1]), 100) / 100 if found else 0.0


def duration(
    seconds: float,  # a duration
) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
