"""What the figures of video features share: held-out clips, settings, photographs of clips, and energies of frames."""

import numpy as np
import pandas as pd
import pytest
import torch

from ebwm.data.configs import FramesConfig
from ebwm.data.frames import Frames
from ebwm.data.photographs import reduced
from ebwm.data.sources import Camera
from ebwm.data.task import Items, Vectors
from ebwm.ebt import EBT
from ebwm.figures.experiment import frame_energy, video
from ebwm.figures.experiment.runs import Experiment

SHAPE = dict(encoder="pixels", size=4, frames=3, spacing=0.25, train_clips=6, eval_clips=4, footage="digits",
             video_dir=None)


def test_test_clips_of_made_footage_follow_the_training_clips(monkeypatch, tmp_path):
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path))
    experiment = Experiment.__new__(Experiment)
    experiment.parameters, experiment.device = SHAPE, torch.device("cpu")
    clips = video.video_clips(experiment)
    train = torch.stack([*clips.train])
    assert torch.equal(clips.task.splits["train"].whole(), torch.cat([train, clips.held["valid"], clips.held["test"]]))
    assert torch.equal(torch.stack([*clips.first(2)]), train[:2])
    assert {name: len(part) for name, part in clips.held.items()} == {"valid": 4, "test": 4, "other": 4}
    assert not video.photograph_of(clips.task, "train").any()


def test_a_clip_shows_the_photograph_of_its_number(monkeypatch):
    images = [np.full((40, 40, 3), 60 * number, np.uint8) for number in range(4)]
    monkeypatch.setattr(Camera, "images", {"test": [reduced(image, 4) for image in images]})
    config = FramesConfig(frames=2, eval_clips=12)
    task, source = Frames(config, Vectors(3), {"test": Items(torch.zeros(12))}), Camera(config, 0, 4)
    task.source = source
    shown = [made.clips[0].max() // 60 for made in map(source.clips, source.units("test"))]
    assert shown == video.photograph_of(task, "test").tolist() and len(set(shown)) > 1


def test_given_settings_replace_the_chosen_ones():
    tuning = {"chosen": {"transformer": {"learning_rate": 0.1}, "ebt": {"learning_rate": 0.2, "step_size": 3.0}}}
    found = video.chosen_settings(tuning, ["ebt", "transformer"], {"transformer": 0.5}, {})
    assert found.learning_rate.tolist() == [0.2, 0.5] and found.step_size.isna().tolist() == [False, True]


@pytest.mark.parametrize("candidates", ["state", "latent"])
def test_scores_of_frames_are_those_of_the_walks(candidates):
    seed = lambda: torch.Generator().manual_seed(0)
    model, clips = EBT(12, 1, 2, 12, candidates=candidates, generator=seed()), torch.randn(5, 4, 12, generator=seed())
    walked = frame_energy.walk_frames(model, clips, 3, 2, 2, seed())
    scores, steps = frame_energy.frame_scores(walked, clips, 2), walked.by_step()
    assert walked.ends.shape == (2, 5, 3, 12) and len(steps) == 4 * 5 * 3
    at_end = steps[steps.step == 2].reset_index(drop=True)
    shared = ["clip", "position", "energy", "error"]
    pd.testing.assert_frame_equal(scores[shared], at_end[shared])
    assert scores[scores.position == 0].motion.isna().all()


def test_ranks_within_groups_do_not_follow_a_difference_between_groups():
    clip, group = np.arange(20) % 10, np.arange(20) // 10
    frame = pd.DataFrame(dict(position=group, score=clip + 100.0 * group, target=-clip + 100.0 * group))
    assert frame_energy.rank_within(frame, "score", "target") == pytest.approx(-1)
    assert frame_energy.rank_within(frame.assign(all=0), "score", "target", ("all",)) > 0
