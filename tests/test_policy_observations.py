"""What policies observe: states, images without a state, and instructions of any number of vectors."""

from functools import partial

import numpy as np
import pytest
import torch

from ebwm import cli
from ebwm.energy import gradient_by_autograd
from ebwm.policy.cameras import prepared
from ebwm.policy.chunks import Chunks, ChunksConfig
from ebwm.policy.demonstrations import Demonstrations, collect
from ebwm.policy.evaluation import evaluate_policy, evaluation_seeds
from ebwm.policy.formats import read_demonstrations, write_demonstrations
from ebwm.policy.lerobot import LeRobotConfig, LeRobotPolicy
from ebwm.policy.models import ChunkModel
from ebwm.policy.policies import FILE, PolicySettings, load_policy
from ebwm.policy.reach import side, side_of_path
from ebwm.policy.simulators import Disturbance
from ebwm.policy.training import fit_policy, train_policy
from ebwm.policy.trunks import ChunkShape
from ebwm.settings import generator
from ebwm.usage import UsageError

TINY = dict(dim=16, depth=1, heads=2, predict=4, execute=2, updates=2, batch=8)
WORDS = {"left": np.eye(5, dtype=np.float32)[:3], "right": np.eye(5, dtype=np.float32)[2:4]}


@pytest.fixture(scope="module")
def filmed():
    return collect("reach", 4, image=16)


@pytest.fixture(scope="module")
def told():
    """Demonstrations whose instruction says on which side they pass."""
    return Demonstrations("reach", [one._replace(language=WORDS[side(one)]) for one in collect("reach", 20).episodes])


def without_state(demonstrations):
    seen = lambda one: {"image": one.observations["image"]}
    return Demonstrations("reach", [one._replace(observations=seen(one)) for one in demonstrations.episodes])


# Images without a state


@pytest.mark.parametrize("images", ["cnn", "pixels"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_policy_of_images_alone_trains_loads_and_acts(images, recorded, filmed, tmp_path):
    given = filmed if recorded else without_state(filmed)
    settings = PolicySettings.named("ebt", images=images, state=not recorded, **TINY)
    policy = train_policy(given, tmp_path, settings)
    assert policy.model.shape.image == (16 if images == "cnn" else None)
    assert (policy.model.shape.state_dim == 0) == (images == "cnn") and not policy.options.state
    run = partial(evaluate_policy, simulator="reach", seeds=evaluation_seeds(1), workers=0, trace=True,
                  options={"image": 16})
    [first], [again] = run(policy), run(load_policy(tmp_path))
    assert again.trace == first.trace and first.outcome in ("success", "failure")
    image = torch.from_numpy(filmed.episodes[0].observations["image"][:1])
    chunks = []
    for other in ({}, {"state": torch.full((1, 4), 9.0)}):
        policy.reset(generator(0, "episode"))
        chunks.append(policy.predict_action_chunk({"image": image} | other))
    assert torch.equal(*chunks), "a state has no effect"
    with pytest.raises(UsageError, match="must hold 'image'"):
        policy.predict_action_chunk({"state": torch.zeros(1, 4)})
    with pytest.raises(UsageError, match="that sees the state, or without noise"):
        run(policy, disturbance=Disturbance(noise=0.1))


def test_images_of_another_size_are_refused(filmed):
    settings = PolicySettings.named("cloning", **TINY)
    policy = fit_policy(Chunks.of(without_state(filmed), ChunksConfig(predict=4)), settings).policy
    with pytest.raises(ValueError, match=r"context\['image'\]=\[2, 8, 8, 3\]: must have shape \[batch, 2, 16, 16, 3\]"):
        policy.predict_action_chunk({"image": torch.zeros(1, 8, 8, 3, dtype=torch.uint8)})


def test_a_seed_fixes_the_network_of_images():
    first, again, other = (
        ChunkModel(state_dim=0, action_dim=2, image=16, generator=generator(seed, "weights")) for seed in (0, 0, 1))
    weights = [model.encoder.image[0].weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.encoder.image[3].bias.abs().max() <= (32 * 25) ** -0.5


@pytest.mark.parametrize("target", ["set.hdf5", "set"])
def test_images_without_a_state_are_read_as_they_were_written(target, filmed, tmp_path):
    given = without_state(filmed)
    write_demonstrations(tmp_path / target, given, {"agent": 2, "goal": 2})
    found = read_demonstrations(tmp_path / target)
    for ours, theirs in zip(found.episodes, given.episodes, strict=True):
        assert ours.observations.keys() == {"image"}
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        assert np.abs(ours.observations["image"].astype(int) - theirs.observations["image"]).mean() < 3
    with pytest.raises(UsageError, match=r"it must have state or image|no feature observation.state"):
        read_demonstrations(tmp_path / target, camera="")


@pytest.mark.parametrize("given, changes, message", [
    (lambda filmed: filmed, dict(state=False, images="none"), "state=False: leaves nothing to observe"),
    (without_state, dict(images="none"), "state=False: leaves nothing to observe"),
    (lambda filmed: collect("reach", 2), dict(state=False), "leave a policy nothing to observe with state=False"),
    (lambda filmed: collect("reach", 2), dict(images="pixels"), "needs observations with images"),
])
def test_policies_that_see_nothing_are_refused(given, changes, message, filmed, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        train_policy(given(filmed), tmp_path / "run", PolicySettings.named("cloning", **TINY, **changes))
    assert not (tmp_path / "run" / FILE).exists()


def test_commands_for_images_alone(tmp_path, monkeypatch, capsys):
    pytest.importorskip("h5py")
    monkeypatch.setenv("EBWM_RUNS", str(tmp_path))
    demos = str(tmp_path / "demos.hdf5")
    assert cli.main(["policy", "demos", "reach", "--episodes", "2", "--image", "16", "--out", demos]) == 0
    train = ["policy", "train", "cloning", "state=false", "dim=16", "updates=2", "--demos", demos, "--out", "run"]
    assert cli.main(train) == 0 and "Next:" in capsys.readouterr().out
    assert cli.main(["policy", "evaluate", "run", "--seeds", "5"]) == 0 and "in 1 episodes" in capsys.readouterr().out


def test_lerobot_needs_no_state_where_the_run_has_none(filmed):
    settings = PolicySettings.named("cloning", **TINY)
    policy = fit_policy(Chunks.of(without_state(filmed), ChunksConfig(predict=4)), settings).policy
    adapter = LeRobotPolicy(LeRobotConfig(horizon=4, n_action_steps=2), policy)
    batch = {"observation.images.top": torch.rand(3, 3, 16, 16)}
    assert adapter.select_action(batch).shape == (3, 2)
    window = {"observation.images.top": torch.rand(3, 2, 3, 16, 16), "action": torch.zeros(3, 4, 2)}
    assert adapter.predict_action_chunk(window).shape == (3, 2, 2) and len(policy.seen) == 2
    adapter(window)[0].backward()
    assert adapter.model.encoder.image[0].weight.grad.abs().sum() > 0
    with pytest.raises(UsageError, match=r"must hold observation.state or observation.images.CAMERA"):
        adapter.select_action({"action": torch.zeros(1)})
    config = LeRobotConfig()
    config.input_features, config.output_features = {"observation.images.top": None}, {"action": None}
    config.validate_features()
    config.input_features = {"observation.language": None}
    with pytest.raises(UsageError, match="input_features"):
        config.validate_features()


def test_lerobot_asks_for_no_camera_where_the_run_sees_no_images(filmed):
    settings = PolicySettings.named("cloning", images="none", **TINY)
    chunks = Chunks.of(prepared(filmed, "none"), ChunksConfig(predict=4))
    adapter = LeRobotPolicy(LeRobotConfig(horizon=4, n_action_steps=2), fit_policy(chunks, settings).policy)
    state, image = {"observation.state": torch.zeros(3, 4)}, torch.rand(3, 3, 16, 16)
    cameras = {"observation.images.front": image, "observation.images.hand": image}
    acted = [adapter.select_action(state | cameras) for _ in range(2)]  # the second one is from the queue
    adapter.reset()
    assert all(torch.equal(action, adapter.select_action(state)) for action in acted)
    window = {name: part.unsqueeze(1).repeat(1, 2, *[1] * (part.ndim - 1)) for name, part in (state | cameras).items()}
    assert adapter(window | {"action": torch.zeros(3, 4, 2)})[0].isfinite()


# Instructions


@pytest.mark.parametrize("target", ["set.hdf5", "set"])
def test_instructions_are_read_as_they_were_written(target, told, tmp_path):
    write_demonstrations(tmp_path / target, told)
    found = read_demonstrations(tmp_path / target)
    for ours, theirs in zip(found.episodes, told.episodes, strict=True):
        np.testing.assert_array_equal(ours.language, theirs.language, strict=True)
    assert found.digest == told.digest
    plain = Demonstrations("reach", [one._replace(language=None) for one in told.episodes])
    assert plain.digest != told.digest


def test_windows_hold_the_instruction_of_their_episode(told):
    task = Chunks.of(told, ChunksConfig())
    window, whole = task.splits["train"][0], task.splits["train"].whole()
    assert window["language"].shape == (3, 5) and window["language_mask"].dtype == torch.bool
    lengths = whole["language_mask"].sum(1)
    assert set(lengths.tolist()) == {2, 3}
    for length, word in ((3, "left"), (2, "right")):
        chosen = whole["language"][lengths == length]
        assert torch.equal(chosen[:, :length], torch.from_numpy(WORDS[word]).expand(len(chosen), -1, -1))
        assert not chosen[:, length:].any()
    other = Demonstrations("reach", [one._replace(language=2 * one.language) for one in told.episodes])
    assert Chunks.of(other).digests() != task.digests()
    same = Demonstrations("reach", [one._replace(language=WORDS["left"]) for one in told.episodes])
    assert "language_mask" not in Chunks.of(same).splits["train"][0]


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["mlp", "transformer"])
def test_a_policy_goes_where_it_is_told(trunk, told):
    settings = PolicySettings.named("cloning", updates=150, dim=32, depth=2, heads=2, trunk=trunk)
    policy = fit_policy(Chunks.of(told), settings).policy
    for word, vectors in WORDS.items():
        policy.instruction = torch.from_numpy(vectors)
        results = evaluate_policy(policy, "reach", evaluation_seeds(8), workers=0, batch=8, trace=True)
        sides = [side_of_path(np.array(one.trace["states"])[:, :2]) for one in results]
        assert {"left": "right", "right": "left"}[word] not in sides and sides.count(word) >= 2


@pytest.mark.parametrize("trunk", ["mlp", "transformer"])
def test_padding_has_no_effect_and_words_have_one(trunk, told):
    settings = PolicySettings.named("ebt", trunk=trunk, **TINY)
    policy = fit_policy(Chunks.of(told, ChunksConfig(predict=4)), settings).policy

    def chunk(**spoken):
        policy.reset(generator(0, "episode"))
        return policy.predict_action_chunk({"state": torch.tensor([[0.0, -0.8, 0.0, 0.8]])} | spoken)

    words = torch.from_numpy(WORDS["left"])[None]
    padded, mask = torch.cat([words, torch.full((1, 2, 5), torch.nan)], 1), torch.arange(5)[None] < 3
    torch.testing.assert_close(chunk(language=padded, language_mask=mask), chunk(language=words))
    assert not torch.equal(chunk(language=words.tile(1, 2, 1)[:, :4]), chunk(language=words))
    torch.testing.assert_close(chunk(language=words[:, 0]), chunk(language=words[:, :1]), rtol=0, atol=0)
    shuffled = chunk(language=words.flip(1))
    assert torch.allclose(shuffled, chunk(language=words), atol=1e-6) == (trunk == "mlp")
    with pytest.raises(UsageError, match="must hold 'language', which this policy was trained with"):
        chunk()
    for instruction in (words[0], words[0, 0]):
        policy.instruction = instruction
        assert torch.equal(chunk(), chunk(language=instruction[None]))
        assert torch.equal(chunk(language=words), chunk(language=words)), "an observation's own comes first"


@pytest.mark.parametrize("trunk", ["mlp", "transformer"])
@pytest.mark.parametrize("lengths", [None, [4, 1, 0, 2, 3]])
def test_gradients_by_hand_are_those_of_autograd(trunk, lengths):
    shape = ChunkShape(state_dim=3, action_dim=2, language_dim=4, trunk=trunk, dim=32, depth=3)
    draw = lambda *sizes: torch.randn(*sizes, dtype=torch.float64, generator=generator(0, str(sizes)))
    context = {"state": draw(5, 2, 3), "language": draw(5, 4, 4)}
    if lengths:
        context["language_mask"] = torch.arange(4) < torch.tensor(lengths).unsqueeze(1)
    model = ChunkModel(shape, generator=generator(0, "weights")).double()
    landscape, y = model.landscape(context), draw(5, 16, 2).requires_grad_()
    for chosen in (landscape, landscape.select(torch.tensor([2, 0, 1, 4, 3]))):
        for quick, slow in zip(chosen.value_and_grad(y), gradient_by_autograd(chosen.energy, y), strict=True):
            torch.testing.assert_close(quick, slow, rtol=0, atol=1e-13)
            assert not quick.requires_grad
    weights = [y, *(weight for name, weight in model.named_parameters() if name != "step_size")]
    rules = landscape.value_and_grad, partial(gradient_by_autograd, landscape.energy)
    of_weights = [torch.autograd.grad(energies.sin().sum() + grad.square().sum(), weights, retain_graph=True)
                  for energies, grad in (rule(y, create_graph=True) for rule in rules)]
    assert of_weights[0][0].abs().max() > 0
    torch.testing.assert_close(*of_weights, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("spoken, message", [
    ({"language": torch.zeros(5, 2, 6)}, r"=\[2, 6\]: must have shape \[batch, vectors, 7\] or \[batch, 7\]"),
    ({"language": torch.zeros(5, 0, 7)}, r"context\['language'\]=\[0, 7\]"),
    ({"language": torch.zeros(5, 2, 7), "language_mask": torch.ones(5, 3) > 0}, r"context\['language_mask'\]"),
    ({"language": torch.zeros(5, 2, 7), "language_mask": torch.ones(5, 2)}, "must be boolean"),
    ({"language": torch.zeros(5, 7), "language_mask": torch.ones(5, 1) > 0}, r"context\['language_mask'\]"),
])
def test_instructions_of_another_shape_are_refused(spoken, message):
    model = ChunkModel(state_dim=3, action_dim=2, language_dim=7, dim=16, depth=1, generator=generator(0))
    with pytest.raises(ValueError, match=message):
        model.landscape({"state": torch.zeros(5, 2, 3)} | spoken)


@pytest.mark.parametrize("change, message", [
    (lambda one: one._replace(language=None), "all episodes must have the same"),
    (lambda one: one._replace(language=np.zeros((2, 4), np.float32)), "all episodes must have the same"),
    (lambda one: one._replace(language=np.full((2, 5), np.nan, np.float32)), "language of episode 1 has 10 values"),
    (lambda one: one._replace(language=np.zeros((2, 5, 1), np.float32)), "language of episode 1 has the shape"),
    (lambda one: one._replace(observations=one.observations | {"language": one.actions}), "Episode.language"),
    (lambda one: one._replace(observations={}), "it must have state or image"),
])
def test_demonstrations_with_bad_instructions_are_refused(change, message, told):
    first, second, *others = told.episodes
    with pytest.raises(UsageError, match=message):
        Chunks.of(Demonstrations("reach", [first, change(second), *others]))


def test_the_commands_take_an_instruction(told, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBWM_RUNS", str(tmp_path))
    train_policy(told, tmp_path / "run", PolicySettings.named("cloning", **TINY))
    np.save(tmp_path / "go-left.npy", WORDS["left"])
    words = ["policy", "evaluate", "run", "--seeds", "5"]
    assert cli.main([*words, "--instruction", str(tmp_path / "go-left.npy")]) == 0
    assert (tmp_path / "run/evaluations/reach_instruction=go-left").is_dir()
    (tmp_path / "bad.npy").write_bytes(b"left")
    for place in ("bad.npy", "none.npy"):
        assert cli.main([*words, "--instruction", str(tmp_path / place)]) == 2
        shown = capsys.readouterr().err
        assert "--instruction" in shown and place in shown and shown.count("\n") == 1


def test_lerobot_hands_on_instructions(told):
    policy = fit_policy(Chunks.of(told, ChunksConfig(predict=4)), PolicySettings.named("cloning", **TINY)).policy
    adapter = LeRobotPolicy(LeRobotConfig(horizon=4, n_action_steps=2), policy)
    spoken = {"observation.language": torch.randn(3, 4, 5), "observation.language.attention_mask": torch.ones(3, 4) > 0}
    window = {"observation.state": torch.randn(3, 2, 4), "action": torch.zeros(3, 4, 2)} | spoken
    adapter(window)[0].backward()
    assert adapter.model.encoder.language.weight.grad.abs().sum() > 0
    assert adapter.predict_action_chunk(window).shape == (3, 2, 2)
    with pytest.raises(UsageError, match="must hold 'language'"):
        adapter.predict_action_chunk({"observation.state": torch.randn(3, 4)})
