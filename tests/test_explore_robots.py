"""The explorer of episodes of any simulator: pictures, energies, steps, films, refusals; Lift if it is installed."""

import numpy as np
import pytest

from ebwm.cli import main
from ebwm.explore.robots import RobotExplorer, RobotSettings, film_of
from ebwm.policy.evaluation import FIRST_SEED
from ebwm.policy.film import film_episode
from ebwm.usage import UsageError
from ebwm.writing import INCLUDED
from tests.tiny_policy import Corridor, Walker

pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")


class Counting(Corridor):
    """Counts its episodes."""

    resets = 0

    def reset(self, seed, disturbance=None):
        self.resets += 1
        return super().reset(seed, disturbance)


@pytest.fixture
def explorer():
    return RobotExplorer(lambda steps: Walker(), Counting())


def test_a_step_shows_its_picture_and_the_energy_up_to_it(explorer):
    whole = explorer.result
    assert explorer.message.value == "" and whole.result.outcome == "success" and whole.result.seed == FIRST_SEED
    assert len(whole.pictures) == whole.result.steps + 1 == explorer.controls["step"].max + 1
    first = explorer.figure("picture").data[0].source
    explorer.controls["step"].value = 4
    assert explorer.figure("picture").data[0].source != first and explorer.settings.step == 4
    energy = explorer.figure("energy")
    assert energy.layout.shapes[0].x0 == 4
    assert list(energy.data[0].x) == [*range(0, whole.result.steps, 2), len(whole.pictures)]
    assert "from step 4" in explorer.table.value
    explorer.play.value = 6
    assert explorer.settings.step == 6 and explorer.simulator.resets == 1


def test_an_episode_runs_once_for_all_its_steps_and_its_film(explorer, tmp_path):
    av = pytest.importorskip("av", reason="av is not installed: pip install 'ebwm[video]'")
    for step in (1, 3):
        explorer.controls["step"].value = step
    explorer.save_film(tmp_path / "episode.mp4")
    assert explorer.simulator.resets == 1
    with av.open(str(tmp_path / "episode.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == len(explorer.result.pictures) + 20  # the last one for a second
    result = film_episode(Walker(), Counting(), FIRST_SEED, tmp_path / "command.mp4")
    assert (result.outcome, result.steps) == (explorer.result.result.outcome, explorer.result.result.steps)


def test_seeds_are_kept_and_wrong_settings_are_named(explorer):
    explorer.controls["seed"].value = 3
    assert explorer.result.result.seed == FIRST_SEED + 3
    again = film_of(Walker(), Counting(), RobotSettings(3))
    assert all(map(np.array_equal, again.pictures, explorer.result.pictures))
    before = explorer.settings
    explorer.show(RobotSettings(steps=-1))
    assert "steps=-1" in explorer.message.value and explorer.settings is before


def test_an_episode_that_ends_by_an_error_says_why():
    explorer = RobotExplorer(lambda steps: Walker(bad=0.1), Corridor())
    assert "energy=nan" in explorer.message.value


def test_an_included_policy_is_shown_in_its_simulator():
    explorer = RobotExplorer.from_run(INCLUDED / "reach")
    assert explorer.simulator.name == "reach" and explorer.result.result.chunks[0]["steps"] == 9
    explorer.controls["steps"].value = 2
    assert explorer.message.value == "" and explorer.result.result.chunks[0]["steps"] == 2
    for given, message in (((INCLUDED,), "contains no policy"), ((INCLUDED / "reach", "rech"), "simulator='rech'")):
        with pytest.raises(UsageError, match=message):
            RobotExplorer.from_run(*given)


@pytest.mark.slow
def test_a_policy_acts_in_lift(tmp_path):
    """After five updates it fails; state, actions, pictures and energies of Lift fit together."""
    pytest.importorskip("robosuite", reason="robosuite is not installed: pip install 'ebwm[policy]'")
    demos, run = str(tmp_path / "lift.hdf5"), str(tmp_path / "run")
    assert main(["policy", "demos", "robosuite:Lift", "--episodes", "2", "--out", demos]) == 0
    assert main(["policy", "train", "ebt", "--demos", demos, "--out", run, "updates=5", "dim=16", "depth=1"]) == 0
    explorer = RobotExplorer.from_run(run)
    assert explorer.message.value == "" and explorer.simulator.name == "robosuite:Lift"
    assert len(np.unique(explorer.result.pictures[0])) > 50 and explorer.figure("energy") is not None
    explorer.save_film(tmp_path / "lift.mp4")
    assert (tmp_path / "lift.mp4").stat().st_size > 1000
