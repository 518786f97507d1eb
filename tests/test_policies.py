"""Policies: models of chunks, predictors, acting, saving and loading."""

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from ebwm.cli import main
from ebwm.energy import gradient_by_autograd
from ebwm.evaluation.cost import flops
from ebwm.policy import policies
from ebwm.policy.chunks import Chunks, ChunksConfig
from ebwm.policy.demonstrations import Demonstrations, collect
from ebwm.policy.evaluation import fingerprint
from ebwm.policy.formats import write_demonstrations
from ebwm.policy.models import OUTPUTS, ChunkModel
from ebwm.policy.policies import FILE, Policy, PolicySettings, load_policy
from ebwm.policy.predictors import PREDICTORS, Diffusion, make_predictor
from ebwm.policy.robomimic import write_robomimic
from ebwm.policy.training import TRAINING, fit_policy, train_policy
from ebwm.policy.trunks import ChunkShape
from ebwm.policy.walk import PRESETS, PolicyWalk
from ebwm.settings import generator
from ebwm.training.checkpoint import locked
from ebwm.usage import Stopped, UsageError

TINY = dict(dim=16, depth=1, heads=2, predict=4, execute=2, updates=3, batch=8)
SHAPE = ChunkShape(state_dim=3, action_dim=2, predict=4, dim=16, depth=2, heads=2)


def observations(batch: int = 5) -> dict[str, torch.Tensor]:
    return {"state": torch.randn(batch, 2, 3, generator=generator(0, "observations"))}


@pytest.fixture(scope="module")
def demonstrations():
    return collect("reach", 4)


@pytest.fixture(scope="module")
def chunks(demonstrations):
    return Chunks.of(demonstrations, ChunksConfig(predict=4))


@pytest.mark.parametrize("trunk", ["mlp", "transformer"])
def test_a_landscape_selects_expands_and_differentiates(trunk):
    model = ChunkModel(SHAPE, trunk=trunk, generator=generator(0, "weights")).double()
    landscape = model.landscape({"state": observations()["state"].double()})
    y = torch.randn(3, 5, 4, 2, generator=generator(1, "candidates"), dtype=torch.float64)
    energies = torch.stack([landscape(part) for part in y])
    assert torch.allclose(landscape.expand(3)(y), energies, atol=1e-12)
    assert torch.allclose(landscape.select(torch.tensor([4, 1]))(y[0, [4, 1]]), energies[0, [4, 1]], atol=1e-12)
    for quick, slow in zip(landscape.value_and_grad(y[0]), gradient_by_autograd(landscape.energy, y[0]), strict=True):
        assert torch.allclose(quick, slow, rtol=0, atol=1e-12)
    landscape.value_and_grad(y[0], create_graph=True)[1].square().sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if name != "step_size")
    none = landscape.select(torch.tensor([], dtype=torch.long)).value_and_grad(y[0, :0])
    assert [list(part.shape) for part in none] == [[0], [0, 4, 2]]
    with pytest.raises(ValueError, match="candidates has shape"):
        landscape(y[0, :2])
    chosen = landscape.select(torch.tensor([0]))
    with torch.no_grad():
        model.trunk.norm.weight.mul_(2)
    with pytest.raises(RuntimeError, match="parameters have changed"):
        chosen(y[0, :1])


@pytest.mark.parametrize("changes, context, message", [
    ({}, {}, r"context\['state'\]=None: must have shape \[batch, 2, 3\]"),
    ({}, {"state": torch.zeros(1, 3, 3)}, "must have shape"),
    ({"image": 16}, observations(), r"context\['image'\]=None"),
    ({"language_dim": 7}, observations() | {"language": torch.zeros(5, 2, 6)}, r"shape \[batch, vectors, 7\]"),
])
def test_observations_of_another_kind_are_refused(changes, context, message):
    with pytest.raises(ValueError, match=message):
        ChunkModel(SHAPE, generator=generator(0), **changes).landscape(context)


def test_images_and_instructions_change_the_energy():
    model = ChunkModel(SHAPE, image=16, language_dim=7, generator=generator(0, "weights"))
    full = observations() | {"image": torch.zeros(5, 2, 16, 16, 3, dtype=torch.uint8), "language": torch.zeros(5, 2, 7)}
    y = torch.zeros(5, 4, 2)
    energy = model.landscape(full)(y)
    for name, other in (("image", full["image"] + 200), ("language", full["language"] + 1)):
        assert not torch.allclose(energy, model.landscape(full | {name: other})(y))


@pytest.mark.parametrize("kind, options", [(kind, {}) for kind in PREDICTORS] + [
    ("ebt", {"samples": 3}), ("ebt", {"walk": "authors"}), ("diffusion", {"output": "noise"})])
def test_a_predictor_repeats_and_learns_in_all_its_weights(kind, options):
    predictor, context = make_predictor(kind, SHAPE, generator(0, "weights"), **options), observations()
    target = torch.rand(5, 4, 2, generator=generator(0, "target")) * 2 - 1
    predictor.loss(context, target, generator(0, "training")).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in predictor.model.parameters())
    first, again, other = (predictor.predict(context, generator(seed, "start")) for seed in (0, 0, 1))
    assert first.value.shape == (5, 4, 2) and torch.equal(first.value, again.value)
    assert first.steps.shape == first.evaluations.shape == (5,)
    assert (kind == "cloning") == torch.equal(first.value, other.value)
    assert (first.energy is not None) == (kind == "ebt") and not first.value.requires_grad


def test_more_walks_end_at_lower_energies():
    one, many = (make_predictor("ebt", SHAPE, generator(0, "weights"), samples=samples) for samples in (1, 16))
    best, single = (part.predict(observations(64), generator(0)).energy.mean() for part in (many, one))
    assert best < single


def test_a_walk_without_a_finite_energy_is_not_the_best(monkeypatch):
    predictor, energies = make_predictor("ebt", SHAPE, generator(0, "weights"), samples=3), []
    walk = predictor._walk

    def spoiled(*arguments):
        found = walk(*arguments)
        found.energy[:5] = torch.nan
        energies.append(found.energy.view(3, 5)[1:].amin(0))
        return found

    monkeypatch.setattr(predictor, "_walk", spoiled)
    assert torch.equal(predictor.predict(observations(), generator(0, "start")).energy, energies[0])


@pytest.mark.parametrize("output", ["clean", "noise"])
def test_denoising_equals_the_steps_of_diffusers(output):
    ddim = pytest.importorskip("diffusers").DDIMScheduler
    predictor = make_predictor("diffusion", SHAPE, generator(0, "weights"), output)
    scheduler = ddim(100, beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing",
                     prediction_type={"clean": "sample", "noise": "epsilon"}[output])
    scheduler.set_timesteps(10)
    context = observations()
    memory = predictor.model.prefill(context)
    y = torch.randn(5, 4, 2, generator=generator(0, "start"))
    with torch.no_grad():
        for level in scheduler.timesteps:
            found = predictor.model.denoise(y, level.expand(5), memory)
            y = scheduler.step(found, level, y, use_clipped_model_output=True).prev_sample
    assert torch.allclose(predictor.predict(context, generator(0, "start"), 10).value, y, atol=1e-4)


def with_images(demonstrations):
    draw = lambda episode: generator(episode.seed, "image")
    images = lambda one: torch.randint(256, (len(one.actions), 16, 16, 3), generator=draw(one))
    seen = lambda episode: episode.observations | {"image": images(episode).to(torch.uint8).numpy()}
    return Demonstrations("reach", [one._replace(observations=seen(one)) for one in demonstrations.episodes])


@pytest.mark.parametrize("kind, images", [
    *((kind, "none") for kind in PREDICTORS), ("ebt", "cnn"), ("cloning", "pixels")])
def test_a_saved_policy_acts_as_before(kind, images, demonstrations, tmp_path):
    demonstrations = with_images(demonstrations)
    policy = train_policy(demonstrations, tmp_path, PolicySettings.named(kind, images=images, **TINY))
    seen = {name: torch.from_numpy(part[:5]) for name, part in demonstrations.episodes[0].observations.items()}
    actions = []
    for one in (policy, load_policy(tmp_path)):
        one.reset(generator(0, "episode"))
        rows = [{name: part[step:step + 1] for name, part in seen.items()} for step in range(5)]
        actions.append(torch.stack([one.select_action(row) for row in rows]))
        assert len(one.facts) == 3 and {"steps", "evaluations", "energy", "seconds"} <= one.facts[0].keys()
    assert torch.equal(*actions) and actions[0].shape == (5, 1, 2)


def test_the_seconds_of_a_prediction_begin_before_the_encoder(chunks, monkeypatch):
    policy = fit_policy(chunks, PolicySettings.named("cloning", **TINY), 0).policy
    order, normalised = [], policy._normalised
    monkeypatch.setattr(policies, "_time", lambda device: order.append("time") or 0.0)
    monkeypatch.setattr(policy, "_normalised", lambda observation: order.append("encoder") or normalised(observation))
    policy.predict_action_chunk({"state": torch.zeros(1, policy.model.shape.state_dim)})
    assert order == ["time", "encoder", "time"]


def test_the_first_observation_stands_for_those_before_it(demonstrations, chunks):
    policy = fit_policy(chunks, PolicySettings.named("cloning", **TINY)).policy
    state = demonstrations.episodes[0].observations["state"]
    for step, expected in ((0, state[[0, 0]]), (1, state[[0, 1]]), (2, state[[1, 2]])):
        policy.select_action({"state": torch.from_numpy(state[step:step + 1])})
        found = policy.context()["state"][0]
        assert torch.allclose(found, policy.normaliser.state(torch.from_numpy(expected)))


def test_the_fingerprint_of_a_diffusion_policy_does_not_depend_on_the_order_of_a_set(chunks):
    policy = fit_policy(chunks, PolicySettings.named("diffusion", **TINY)).policy
    before = fingerprint(policy)
    policy.predictor.levels.config["_use_default_values"].reverse()
    assert fingerprint(policy) == before
    policy.predictor.levels.betas[0] += 1
    assert fingerprint(policy) != before


def test_the_clock_is_read_when_the_device_has_finished(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    devices = [torch.device("cpu"), torch.device("cuda")]
    assert policies._time(devices[0]) <= policies._time(devices[1]) and waited == devices[1:]


def test_training_repeats_and_depends_on_its_seed(chunks):
    options = PolicySettings.named("ebt", **TINY)
    first, again, other = (fit_policy(chunks, options, seed).log[-1]["loss"] for seed in (0, 0, 1))
    assert first == again != other


def test_weights_are_kept_during_training(demonstrations, chunks):
    trained = fit_policy(chunks, PolicySettings.named("cloning", **TINY), keep=[1, 3])
    observation = {"state": torch.from_numpy(demonstrations.episodes[0].observations["state"][:1])}
    first, last = (trained.after(updates).predict_action_chunk(observation) for updates in (1, 3))
    assert torch.equal(last, trained.policy.predict_action_chunk(observation)) and not torch.equal(first, last)
    with pytest.raises(ValueError, match="updates=2"):
        trained.after(2)


@pytest.mark.parametrize("kind", ["ebt", "diffusion"])
def test_an_interrupted_training_ends_as_a_whole_one(kind, demonstrations, tmp_path, monkeypatch):
    monkeypatch.setattr("ebwm.policy.training.SAVE_EVERY", 2)
    options = PolicySettings.named(kind, **TINY | {"updates": 5})
    whole = train_policy(demonstrations, tmp_path / "whole", options)
    seen = []

    def interrupt(row):
        seen.append(row["update"])
        if seen == [1, 2, 3]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_policy(demonstrations, tmp_path / "run", options, note=interrupt)
    with pytest.raises(UsageError, match="interrupted training with other seed"):
        train_policy(demonstrations, tmp_path / "run", options, seed=1)
    again = train_policy(demonstrations, tmp_path / "run", options, note=interrupt)
    assert seen == [1, 2, 3, 3, 4, 5] and not (tmp_path / "run/training").exists()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_training_after_an_update_that_is_saved(number, demonstrations, tmp_path):
    options, name = PolicySettings.named("ebt", **TINY | {"updates": 4}), signal.Signals(number).name
    whole = train_policy(demonstrations, tmp_path / "whole", options)
    with pytest.raises(Stopped, match=f"{name}: stopped after update 1, and saved in .*/run; repeat") as stopped:
        train_policy(demonstrations, tmp_path / "run", options,
                     note=lambda row: row["update"] == 1 and signal.raise_signal(number))
    assert (stopped.value.signal, stopped.value.folder) == (name, tmp_path / "run")
    again = train_policy(demonstrations, tmp_path / "run", options)
    assert all(map(torch.equal, whole.model.state_dict().values(), again.model.state_dict().values()))


@pytest.mark.parametrize("damaged, message, first", [(2, "starts again", 1), (9, "resumes from .*00000002", 3)])
def test_a_training_warns_of_damaged_checkpoints(damaged, message, first, demonstrations, tmp_path, monkeypatch):
    monkeypatch.setattr("ebwm.policy.training.SAVE_EVERY", 2)
    options, seen = PolicySettings.named("cloning", **TINY), []

    def interrupt(row):
        seen.append(row["update"])
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_policy(demonstrations, tmp_path, options, note=interrupt)
    checkpoint = tmp_path / TRAINING / f"{damaged:08d}.safetensors"
    checkpoint.write_bytes(b"")
    with pytest.warns(UserWarning, match=f"{re.escape(checkpoint.name)}: .*; training {message}"):
        train_policy(demonstrations, tmp_path, options, note=interrupt)
    assert seen[2] == first


@pytest.mark.parametrize("preset, trained", [("ours", True), ("paper", False)])
def test_a_fixed_step_size_stays(preset, trained, chunks):
    options = PolicySettings.named("ebt", preset, **TINY)
    log = fit_policy(chunks, options).log
    assert len({row["step_size"] for row in log}) == (len(log) if trained else 1)


def test_a_saved_policy_is_loaded_with_other_settings(demonstrations, tmp_path):
    train_policy(demonstrations, tmp_path, PolicySettings.named("ebt", **TINY))
    changed = load_policy(tmp_path, samples=3, steps=5, execute=1)
    assert (changed.predictor.samples, changed.options.steps, changed.execute) == (3, 5, 1)
    assert load_policy(tmp_path, walk="authors").predictor.walk == PRESETS["authors"]
    slower = load_policy(tmp_path, walk=replace(changed.options.walk, momentum=0.5))
    assert slower.predictor.walk.momentum == 0.5 and torch.equal(slower.model.step_size, changed.model.step_size)
    for change, message in (({"dim": 32}, "setting='dim'"), ({"execute": 99}, "execute=99"), ({"steps": 0}, "steps=0"),
                            ({"walk": "author"}, "walk='author'.*did you mean 'authors'"),
                            ({"walk": PolicyWalk(step_size=0.1)}, "step_size=0.1: has no effect after training"),
                            ({"walk": PolicyWalk(factor=2.0)}, "factor=2: .*policy.model.step_size")):
        with pytest.raises(UsageError, match=f"^{message}"):
            load_policy(tmp_path, **change)


@pytest.mark.parametrize("text, message", [
    (None, "contains no policy.json"),
    ("{", "cannot be read"),
    ("{}", "cannot be read"),
    (json.dumps({"settings": {"walk": {"noise": [0, 0]}, "kind": "magic"}}), "kind='magic'"),
])
def test_a_folder_without_a_policy_is_refused(text, message, tmp_path):
    if text is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match=message):
        load_policy(tmp_path)


@pytest.mark.parametrize("kind, changes, message", [
    ("ebt", {"execute": 99}, "execute=99"),
    ("ebt", {"preset": "best"}, "preset='best'"),
    ("ebt", {"momentun": 0.5}, "momentun"),
    ("ebt", {"least": 3, "most": 2}, "most=2"),
    ("diffusion", {"output": "energy"}, "output='energy'"),
    ("magic", {}, "kind='magic'"),
    ("ebt", {"walk": "papers"}, "walk='papers': must be one of paper, authors"),
    ("ebt", {"steps": 0}, "steps=0: must be at least 1"),
    ("ebt", {"steps": -3}, "steps=-3: must be at least 1"),
    ("diffusion", {"steps": 101}, "steps=101: must be at most 100"),
    ("ebt", {"updates": 0}, "updates=0: must be at least 1"),
    ("ebt", {"learning_rate": 0}, "learning_rate=0: must be a finite number above 0"),
    ("diffusion", {"samples": 4}, "samples=4: is a setting of ebt, not of diffusion"),
    ("cloning", {"steps": 4}, "steps=4: is a setting of ebt and diffusion, not of cloning"),
    ("mixture", {"momentum": 0.5}, "momentum=0.5"), ("ebt", {"output": "noise"}, "output='noise'"),
    ("cloning", {"preset": "paper"}, "preset='paper'"),
    ("ebt", {"stepz": 3}, "setting='stepz': must be one of .*momentum.*updates.*did you mean 'steps'"),
])
def test_settings_that_make_no_sense_are_refused(kind, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PolicySettings.named(kind, **changes).predictor(SHAPE)


def test_a_walk_is_also_named_by_its_preset():
    paper = PolicySettings.named("ebt", "paper")
    assert PolicySettings(walk="paper") == PolicySettings.named("ebt", walk="paper") == paper
    assert PolicySettings.named("ebt", walk="paper", momentum=0.5).walk == replace(PRESETS["paper"], momentum=0.5)


@pytest.mark.parametrize("kind, options", [("diffusion", {}), ("ebt", {}), ("ebt", {"walk": "authors"})])
def test_a_prediction_takes_at_least_one_step(kind, options):
    predictor = make_predictor(kind, SHAPE, generator(0), **options)
    with pytest.raises(ValueError, match="steps=0: must be at least 1"):
        predictor.predict(observations(), generator(0), 0)


def test_outputs_have_nearly_as_many_weights():
    models = {output: ChunkModel(SHAPE, output, generator=generator(0)) for output in OUTPUTS}
    sizes = {output: sum(p.numel() for p in model.parameters()) for output, model in models.items()}
    assert max(sizes[name] for name in ("energy", "clean", "noise", "actions")) < 1.2 * sizes["energy"]


def test_a_policy_acts_on_a_batch_as_alone(demonstrations, chunks):
    policy = fit_policy(chunks, PolicySettings.named("cloning", **TINY)).policy
    state = torch.from_numpy(demonstrations.episodes[0].observations["state"][:3])
    together = Policy(policy.predictor, policy.normaliser, policy.options).predict_action_chunk({"state": state})
    alone = Policy(policy.predictor, policy.normaliser, policy.options).predict_action_chunk({"state": state[1:2]})
    assert torch.allclose(together[1:2], alone, atol=1e-6)


def test_windows_of_another_length_are_refused(chunks):
    with pytest.raises(ValueError, match="predict=16: must be 4"):
        fit_policy(chunks, PolicySettings(updates=1))


def test_a_diffusion_policy_takes_at_most_its_levels():
    with pytest.raises(ValueError, match="steps=101"):
        Diffusion(ChunkModel(SHAPE, "clean", generator=generator(0)), 101)


def test_an_unknown_encoder_of_images_is_refused(demonstrations, tmp_path, capsys):
    write_demonstrations(tmp_path / "demos", demonstrations)
    places = ["--demos", str(tmp_path / "demos"), "--out", str(tmp_path / "policy")]
    assert main(["policy", "train", "cloning", "images=camera", *places]) == 2
    assert re.fullmatch(r"ebwm: name='camera': must be one of [^\n]*\n", capsys.readouterr().err)


def test_training_through_the_last_step_costs_at_most_three_and_a_half_times_cloning():
    shape = ChunkShape(state_dim=39, action_dim=4)
    context, target = {"state": torch.randn(64, 2, 39)}, torch.randn(64, 16, 4)

    def cost(kind, **walk):
        predictor = PolicySettings.named(kind, **walk).predictor(shape)
        return flops(lambda: predictor.loss(context, target, generator(0)).backward()).total

    steps = range(PRESETS["ours"].least, PRESETS["ours"].most + 1)  # drawn with equal probability
    assert sum(cost("ebt", least=count, most=count) for count in steps) / len(steps) <= 3.5 * cost("cloning")


@pytest.mark.parametrize("trunk", ["mlp", "transformer"])
def test_an_update_costs_no_more_than_its_derivatives_need(trunk):
    """Of n steps: n gradients of 2 forwards, 4 forwards for the derivative of the last, and the observations once."""
    shape = ChunkShape(state_dim=39, action_dim=4, trunk=trunk)
    context, target = {"state": torch.randn(8, 2, 39)}, torch.randn(8, 16, 4)
    predictor = PolicySettings.named("ebt", least=4, most=4).predictor(shape)
    with torch.no_grad():
        landscape = predictor.model.landscape(context)
        forward = flops(lambda: landscape.energy(target)).total
        observed = flops(lambda: predictor.model.prefill(context)).total
    needed = (2 * 4 + 4) * forward + 3 * observed
    assert 0.9 * needed < flops(lambda: predictor.loss(context, target, generator(0)).backward()).total < 1.03 * needed


def test_a_second_training_in_a_folder_is_refused(demonstrations, tmp_path, capsys):
    write_demonstrations(tmp_path / "demos", demonstrations)
    places = ["--demos", str(tmp_path / "demos"), "--out", str(tmp_path / "policy")]
    words = ["policy", "train", "cloning", *(f"{name}={value}" for name, value in TINY.items()), *places]
    with locked(tmp_path / "policy" / TRAINING):
        assert main(words) != 0
    assert "another process is writing here" in capsys.readouterr().err
    assert main(words) == 0 and (tmp_path / "policy" / FILE).is_file()


@pytest.mark.parametrize("every", [2, 3])
def test_a_training_that_was_interrupted_before_its_last_file_is_resumed(every, demonstrations, tmp_path, monkeypatch):
    write_demonstrations(tmp_path / "demos", demonstrations)
    words = ["policy", "train", "cloning", *(f"{name}={value}" for name, value in TINY.items()), "--demos",
             str(tmp_path / "demos"), "--out", str(tmp_path / "policy")]

    def interrupt(path, value):
        raise KeyboardInterrupt

    monkeypatch.setattr("ebwm.policy.training.SAVE_EVERY", every)
    with monkeypatch.context() as patch:
        patch.setattr("ebwm.policy.training.write_json", interrupt)
        assert main(words) != 0
    before = (tmp_path / "policy/model.safetensors").read_bytes()
    assert main(words) == 0 and (tmp_path / "policy/model.safetensors").read_bytes() == before
    assert (tmp_path / "policy" / FILE).is_file() and main(words) == 2, "a whole policy is not replaced"
    (tmp_path / "policy" / FILE).unlink()
    assert main(words) == 2, "files of another kind are not replaced"


def test_the_command_reads_what_its_options_choose(demonstrations, tmp_path, capsys):
    demos, run = tmp_path / "demos.hdf5", tmp_path / "run"
    pictures = lambda one: {"image": np.zeros((len(one.actions), 16, 16, 3), np.uint8)}
    wide = [one._replace(actions=2 * one.actions, observations=one.observations | pictures(one))
            for one in demonstrations.episodes]
    write_robomimic(demos, Demonstrations("reach", wide), masks={"few": [0, 2]}, camera="front")
    words = ["policy", "train", "cloning", *(f"{name}={value}" for name, value in TINY.items()), "--demos", str(demos),
             "--out", str(run), "--mask", "few"]
    assert main(words) == 2 and "outside of [-1, 1]" in capsys.readouterr().err
    assert main([*words, "--unbounded", "--camera", "back"]) == 2 and "back_image is missing" in capsys.readouterr().err
    assert main([*words, "--unbounded", "--camera", ""]) == 0
    stored, policy = json.loads((run / FILE).read_text()), load_policy(run)
    few = [one._replace(observations={"state": one.observations["state"]}) for one in (wide[0], wide[2])]
    assert stored["demonstrations"] == Demonstrations("reach", few).digest
    assert stored["reading"] == {"mask": "few", "camera": "", "bounded": False}
    assert max(policy.normaliser.actions.std) > 1 and not policy.model.shape.image
