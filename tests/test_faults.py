"""What goes wrong is noticed, told and survived: broken files, full disks, numbers that aren't finite."""

import contextlib
import json
import math
import multiprocessing.connection
import os
import pickle
import re
import shutil
import signal
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import (
    S2,
    Child,
    assert_same_end,
    events_of,
    files_of,
    log_of,
    stopping,
    tiny,
    trained,
    untimed,
)

from ebwm import sampler
from ebwm.files import sha256
from ebwm.training import checkpoint
from ebwm.training import trainer as training
from ebwm.training.checkpoint import CheckpointError, Checkpoints, load_tensors, save_tensors
from ebwm.training.faults import FAR, Spikes, look

# Killed while it saves


HELD = """
from ebwm.training import checkpoint

inner = checkpoint.PLACE

def held(*given):
    path = given[WHICH]
    if "00000004" in path.name:
        if WHICH == 1:
            inner(*given)
            path.write_bytes(path.read_bytes()[:1000])
        print("held", flush=True)
        sys.stdin.readline()
    return inner(*given)

checkpoint.PLACE = held
"""
WHERE = {"amid the tensors": ("save_file", "1"), "before the digest": ("sha256", "0")}


@pytest.mark.parametrize("where", WHERE)
def test_killed_while_it_saves_it_goes_on_from_the_last_good_checkpoint(runs, monkeypatch, where):
    """And as long as it lives, nobody else may write there: a second one is refused at once."""
    whole, parts, (place, which) = trained(runs, *S2), runs / "002", WHERE[where]
    with Child(*S2, before=HELD.replace("PLACE", place).replace("WHICH", which)) as child:
        child.until("held")
        left = {path.name for path in (parts / "checkpoints").iterdir()}
        with monkeypatch.context() as patch:
            patch.setattr(training, "load_data", lambda config: pytest.fail("it isn't refused at once"))
            with pytest.raises(CheckpointError, match=f"{parts}: another process is training here; wait for"):
                training.resume(parts, progress=False)
        assert child.kill() == -signal.SIGKILL
    draft, name = f".{child.process.pid}.00000004.safetensors", "00000004.safetensors"
    assert (draft in left, name in left) == (place == "save_file", place == "sha256")
    training.resume(parts, progress=False)
    assert [row["what"].partition(": ")[2] for row in events_of(parts, "refused")] == [
        "no 00000004.safetensors.sha256 beside it; it wasn't written to the end, or isn't ours"
    ] * (place == "sha256")
    assert events_of(parts, "resumed")[0]["update"] == 2
    assert not [*parts.rglob(f".{child.process.pid}.*")]
    assert_same_end(parts, whole)


# Checkpoints that are not good


class Payload:
    """Unpickled, it runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def sealed(path, content):
    """Put content where a checkpoint is expected, with the digest that it has."""
    path.write_bytes(content)
    path.with_name(path.name + ".sha256").write_text(f"{sha256(path)}  {path.name}\n")


def resealed(path, **changes):
    """The same checkpoint with another header, and with its digest."""
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, meta | changes)
    sealed(path, path.read_bytes())


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def foreign(path, meta):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(3)}, path, meta)
    sealed(path, path.read_bytes())


def torch_save(path):
    torch.save({"payload": Payload(path.parents[1] / "mark")}, path)
    sealed(path, path.read_bytes())


def beside(path):
    return path.with_name(path.name + ".sha256")


def payload(path):
    return pickle.dumps(Payload(path.parents[1] / "mark"))


OTHERS = "its bytes aren't those that were written (SHA-256 differs from "
FOREIGN = "not a safetensors checkpoint"
DAMAGE = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-100]), OTHERS),
    "cut in its header": (lambda path: path.write_bytes(path.read_bytes()[:50]), OTHERS),
    "cut, with its digest": (lambda path: sealed(path, path.read_bytes()[:-100]), FOREIGN),
    "a bit of a weight": (lambda path: flipped(path, -5), OTHERS),
    "a bit of the header": (lambda path: flipped(path, 100), OTHERS),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty (SHA-256 differs"),
    "empty, with its digest": (lambda path: sealed(path, b""), "the file is empty"),
    "no digest": (lambda path: beside(path).unlink(), "no 00000005.safetensors.sha256 beside it"),
    "an empty digest": (lambda path: beside(path).write_bytes(b""), OTHERS),
    "an earlier format": (lambda path: resealed(path, format=0), "its format is 0, and this version of"),
    "a later format": (lambda path: resealed(path, format=2), "its format is 2, and this version of"),
    "another program's": (lambda path: foreign(path, {"format": "pt"}), "its format is none, and this"),
    "a foreign header": (lambda path: foreign(path, {"meta": "[1]"}), f"{FOREIGN} (its meta is list, "),
    "no JSON": (lambda path: foreign(path, {"meta": "{"}), FOREIGN),
    "deep JSON": (lambda path: foreign(path, {"meta": "[" * 100_000}), FOREIGN),
    "a pickle": (lambda path: path.write_bytes(payload(path)), OTHERS),
    "a pickle, with its digest": (lambda path: sealed(path, payload(path)), FOREIGN),
    "what torch saves, with its digest": (torch_save, FOREIGN),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory, clips):
    """A whole run, and the same one stopped after its fifth update."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBWM_CACHE", str(clips))
        patch.setenv("EBWM_DEVICE", "cpu")
        whole = trained(folder, *S2)
        with pytest.raises(training.Stopped):
            training.train(tiny(*S2), folder, progress=False, callback=stopping(5))
    return whole, folder / "002"


@pytest.fixture
def parts(pair, runs):
    """A copy of the run that was stopped, for who spoils it: with checkpoints 2, 4 and 5."""
    shutil.copytree(pair[1], runs / "001")
    return runs / "001"


@pytest.mark.parametrize("name", DAMAGE)
def test_a_checkpoint_that_is_not_good_is_refused_and_the_one_before_it_taken(pair, parts, name):
    damage, told = DAMAGE[name]
    path = parts / "checkpoints" / "00000005.safetensors"
    damage(path)
    training.resume(parts, progress=False)
    (refused,), (resumed,) = events_of(parts, "refused"), events_of(parts, "resumed")
    assert refused["what"].startswith(f"{path}: {told}") and refused["update"] == resumed["update"] == 4
    assert not (parts / "mark").exists()
    assert_same_weights(parts, pair[0])
    assert untimed(parts) == untimed(pair[0])


def assert_same_weights(folder, other):
    assert sha256(folder / "model.safetensors") == sha256(other / "model.safetensors")


def test_the_payload_would_have_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["a pickle, with its digest", "what torch saves, with its digest"])
def test_weights_are_not_unpickled_either(parts, name):
    DAMAGE[name][0](parts / "checkpoints" / "00000005.safetensors")
    shutil.move(parts / "checkpoints" / "00000005.safetensors", parts / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model.safetensors: not a safetensors checkpoint"):
        training.load_learner(parts)
    assert not (parts / "mark").exists()


def test_two_that_are_not_good_are_both_told(pair, parts):
    for number, name in ((4, "cut"), (5, "a later format")):
        DAMAGE[name][0](parts / "checkpoints" / f"0000000{number}.safetensors")
    training.resume(parts, progress=False)
    assert ["its format is 2" in row["what"] for row in events_of(parts, "refused")] == [True, False]
    assert events_of(parts, "resumed")[0]["update"] == 2
    assert_same_end(parts, pair[0])


def test_where_none_is_good_all_are_named_and_nothing_is_touched(parts):
    for path in Checkpoints(parts / "checkpoints").all():
        flipped(path, -1)
    before = files_of(parts)
    with pytest.raises(CheckpointError) as refusal:
        training.resume(parts, progress=False)
    assert f"{parts} has no checkpoint to go on from: " in str(refusal.value)
    assert str(refusal.value).count("aren't those that were written") == 3
    assert files_of(parts) == before


def test_one_that_cannot_be_read_is_refused(parts, monkeypatch):
    def fail(path):
        if path.name == "00000005.safetensors":
            raise OSError(5, "Input/output error", str(path))
        return sha256(path)

    monkeypatch.setattr(checkpoint, "sha256", fail)
    found, refused = Checkpoints(parts / "checkpoints").newest()
    assert found.path.name == "00000004.safetensors"
    assert refused == [f"{parts}/checkpoints/00000005.safetensors: it cannot be read (Input/output error)"]


# The checkpoints that are kept


def checkpoints(folder, scores, keep=2):
    kept = Checkpoints(folder, keep)
    for update, score in scores.items():
        kept.save(update, {"weight": torch.full((2,), float(update))}, {}, score)
    return kept


def numbers(kept):
    return [int(path.stem) for path in kept.all()]


def test_the_last_few_and_the_best_stay(tmp_path):
    kept = checkpoints(tmp_path, {1: math.nan, 2: 1.0, 3: None, 4: 2.0, 5: None, 6: None})
    assert numbers(kept) == [2, 5, 6] and kept.best().name == "00000002.safetensors"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"0000000{number}.safetensors{end}" for number in (2, 5, 6) for end in ("", ".sha256")}


def test_what_lies_under_a_later_number_never_takes_the_place_of_what_was_saved(tmp_path):
    """As after a newest checkpoint that was refused, or beside a file of somebody else's."""
    kept = checkpoints(tmp_path, {2: None, 4: None, 9: None}, keep=1)
    assert numbers(kept) == [9]
    flipped(kept.all()[-1], -1)
    foreign(tmp_path / "99999999.safetensors", {"meta": '{"score": "low"}'})
    checkpoints(tmp_path, {5: None, 6: 3.0, 7: None}, keep=1)
    assert numbers(kept) == [6, 7, 9, 99999999]
    assert kept.newest()[0].path.name == "00000007.safetensors" and len(kept.newest()[1]) == 2


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_no_checkpoint_holds_what_is_not_finite(tmp_path, wrong):
    kept = Checkpoints(tmp_path)
    with pytest.raises(FloatingPointError, match="b holds values that aren't finite: not saved as a checkp"):
        kept.save(1, {"a": torch.ones(2), "b": torch.tensor([1.0, wrong]), "c": torch.ones(1).long()}, {})
    assert [*tmp_path.iterdir()] == []


def test_a_failed_write_leaves_the_checkpoint_that_was_there(tmp_path):
    kept = checkpoints(tmp_path, {1: None})
    with pytest.raises(TypeError, match="not JSON serializable"):
        kept.save(1, {"weight": torch.zeros(2)}, {"thing": object})
    assert kept.newest()[0].tensors["weight"].tolist() == [1, 1] and kept.newest()[1] == []


# A full disk


FULL = """
import resource

resource_wait = wait

def wait(row):
    if row["update"] == 5:
        resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, BYTES))
    resource_wait(row)
"""


@pytest.mark.parametrize("limit", [20_000, 1], ids=["for a checkpoint", "for a line of log"])
def test_a_full_disk_is_told_and_the_last_good_checkpoint_stays(runs, limit):
    whole, parts = trained(runs), runs / "002"
    with Child(before=FULL.replace("BYTES", str(limit))) as child:
        code, errors = child.end()
    last = parts / "checkpoints" / "00000004.safetensors"
    assert last.stat().st_size > 20_000 > (parts / "log.jsonl").stat().st_size > 1
    assert code == 1 and errors.splitlines()[-1] == (
        f"ebwm: no space is left for {parts}; the last good checkpoint is {last}; "
        f"make room, then go on with: ebwm train --resume {parts}")
    assert [row["update"] for row in log_of(parts)] == [*range(1, 7 if limit > 1 else 6)]
    assert not [*parts.rglob(".[0-9]*")]
    training.resume(parts, progress=False)
    assert_same_end(parts, whole)


def test_what_the_system_refuses_safetensors_is_an_error_of_the_system(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"Is a directory|No such file") as failure:
        checkpoint._save_file({"a": torch.ones(1)}, tmp_path, {})
    assert failure.value.errno and failure.value.filename == str(tmp_path)

    def fail(*given):
        raise checkpoint.SafetensorError("header too large")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(checkpoint.SafetensorError, match="header too large"):
        checkpoint.save_tensors(tmp_path / "x", {})


# Numbers that aren't finite


def spoil(tensor, wrong):
    tensor.view(-1)[0] = wrong


def spoiled_batch(trainer, batch, wrong):
    batch = batch.clone()
    spoil(batch, wrong)
    return batch


def spoiled_memory(trainer, batch, wrong):
    state = next(iter(trainer.optimiser.state.values()))
    spoil(state["exp_avg_sq"], wrong)
    return batch


@torch.no_grad()
def spoiled_weights(trainer, batch, wrong):
    spoil(next(trainer.learner.model.parameters()), wrong)
    return batch


def spoiled_outer_gradient(trainer, batch, wrong):
    weight = next(trainer.learner.model.parameters())
    handle = weight.register_hook(lambda grad: (handle.remove(), grad * wrong)[1])
    return batch


class Inner:
    """Energies, or their gradients, that aren't finite at one place, before any bound looks at them."""

    def __init__(self, patch, part):
        self.patch, self.part, self.evaluate = patch, part, sampler.evaluate

    def __call__(self, trainer, batch, wrong):
        spoils = {"energy": lambda e, g: (e * wrong, g * wrong), "gradient": self.one(wrong)}[self.part]

        def evaluate(energy, y, create_graph=False):
            if isinstance(energy, sampler._Clamped):
                return self.evaluate(energy, y, create_graph)
            self.patch.setattr(sampler, "evaluate", self.evaluate)
            state = self.evaluate(energy, y, create_graph)
            return sampler.State(state.y, *spoils(state.energy, state.grad))

        self.patch.setattr(sampler, "evaluate", evaluate)
        return batch

    def one(self, wrong):
        """A gradient with one entry that is infinite or no number, and whose graph is whole."""
        def spoils(energy, grad):
            mask = torch.zeros_like(grad)
            mask.view(-1)[0] = wrong
            return energy, grad + mask
        return spoils


class Faulty:
    """`Trainer.update` with something wrong in some batches; whether what it skipped left its state alone."""

    def __init__(self, monkeypatch, fault, batches, wrong=math.nan):
        self.fault, self.batches, self.wrong, self.skipped = fault, batches, wrong, []
        self.update = training.Trainer.update
        monkeypatch.setattr(training.Trainer, "update", lambda trainer, batch: self(trainer, batch))

    def __call__(self, trainer, batch):
        if trainer.batches in self.batches:
            batch = self.fault(trainer, batch, self.wrong)
        before = kept(trainer)
        row = self.update(trainer, batch)
        if row["skipped"]:
            self.skipped.append(all(same(before[name], value) for name, value in kept(trainer).items()))
            assert before.keys() == kept(trainer).keys()
        return row


def kept(trainer):
    return {name: value.clone() for name, value in trainer.state()[0].items() if name != "process0.noise"}


def same(one, other):
    """To the last bit, NaN or not."""
    return torch.equal(*(value.reshape(-1).view(torch.uint8) for value in (one, other)))


def trouble_of(folder):
    return json.loads((folder / "result.json").read_text())["trouble"]


def assert_finite(folder):
    for path in Checkpoints(folder / "checkpoints").all():
        floats = [value for value in load_tensors(path)[0].values() if value.is_floating_point()]
        assert floats and all(value.isfinite().all() for value in floats)


TRANSIENT = {
    "batch": ([], lambda patch: spoiled_batch),
    "batch, from the last state": ([*S2, "model.start=last"], lambda patch: spoiled_batch),
    "energy": ([], lambda patch: Inner(patch, "energy")),
    "energy, s2": (S2, lambda patch: Inner(patch, "energy")),
    "inner gradient": (["optimiser.average=0.9"], lambda patch: Inner(patch, "gradient")),
    "inner gradient, s2": ([*S2, "recipe.clamp=none"], lambda patch: Inner(patch, "gradient")),
    "inner gradient, clamped": (S2, lambda patch: Inner(patch, "gradient")),
    "outer gradient": (["model.kind=transformer"], lambda patch: spoiled_outer_gradient),
}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("name", TRANSIENT)
def test_an_update_that_is_not_finite_is_skipped_and_touches_nothing(runs, monkeypatch, name, wrong):
    entries, fault = TRANSIENT[name]
    faulty = Faulty(monkeypatch, fault(monkeypatch), {4}, wrong)
    folder = trained(runs, *entries)
    assert faulty.skipped == [True]
    assert trouble_of(folder) == {"skipped": 1, "row": 0, "spikes": 0, "rollbacks": 0}
    (event,) = events_of(folder, "skipped")
    assert event == event | {"update": 4, "batch": 5}
    assert event["what"] == "not finite: batch" or "gradient norm " in event["what"]
    assert [row["batch"] for row in log_of(folder)] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert_finite(folder)


@pytest.mark.parametrize("entries", [S2, ["optimiser.average=0.9", "model.kind=transformer"]])
def test_a_run_that_skipped_goes_on_as_if_it_had_not_stopped(runs, monkeypatch, entries):
    Faulty(monkeypatch, spoiled_batch, {1, 4, 5})
    whole = trained(runs, *entries)
    assert trouble_of(whole)["skipped"] == 3
    with pytest.raises(training.Stopped):
        training.train(tiny(*entries), runs, progress=False, callback=stopping(4))
    assert_same_end(training.resume(runs / "002", progress=False), whole)


STAYING = {"optimiser": spoiled_memory, "weights": spoiled_weights}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("name", STAYING)
def test_after_some_in_a_row_it_goes_back_with_a_remedy(runs, monkeypatch, name, wrong):
    faulty = Faulty(monkeypatch, STAYING[name], {5}, wrong)
    folder = trained(runs, *S2, "optimiser.average=0.9", "optimiser.warmup=0", "optimiser.schedule=100000000")
    assert faulty.skipped == [True] * 3
    assert trouble_of(folder) == {"skipped": 3, "row": 0, "spikes": 0, "rollbacks": 1}
    assert [(row["kind"], row["what"]) for row in events_of(folder)] == [
        *[("skipped", f"not finite: {name}")] * 3,
        ("rolled back", "after update 5: 3 updates in a row weren't finite; "
                        "learning rate and step size times 0.5")]
    rows = log_of(folder)
    assert [(row["update"], row["batch"]) for row in rows] == [
        (1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (6, 10), (7, 11), (8, 12)]
    assert [round(row["learning_rate"], 9) for row in rows] == [1e-3] * 4 + [5e-4] * 4
    assert rows[4]["step_size"] == pytest.approx(rows[3]["step_size"] / 2, rel=0.01)
    assert_finite(folder)


def test_it_can_go_back_to_the_very_beginning(runs, monkeypatch):
    """Where the optimiser remembers nothing yet: what it remembered is gone too."""
    Faulty(monkeypatch, spoiled_memory, {1})
    folder = trained(runs, "run.save_every=100")
    assert trouble_of(folder) == {"skipped": 3, "row": 0, "spikes": 0, "rollbacks": 1}
    assert [row["batch"] for row in log_of(folder)] == [*range(5, 13)]
    assert events_of(folder, "rolled back")[0]["what"].startswith("after update 1: 3 updates in a row")


def test_a_checkpoint_that_has_gone_bad_is_no_way_back(runs, monkeypatch):
    def spoiled(trainer, batch, wrong):
        flipped(runs / "001" / "checkpoints" / "00000004.safetensors", -1)
        return spoiled_weights(trainer, batch, wrong)

    Faulty(monkeypatch, spoiled, {5})
    folder = trained(runs)
    assert [row["kind"] for row in events_of(folder)] == ["skipped"] * 3 + ["refused", "rolled back"]
    assert [row["update"] for row in events_of(folder)] == [5, 5, 5, 5, 2]
    assert [row["update"] for row in log_of(folder)] == [*range(1, 9)]


def test_noise_and_batches_are_not_repeated_after_a_return_and_remedies_add_up(draw):
    config = tiny("faults.lower=0.25")
    trainer = training.Trainer(training.make_learner(config.model, 8, 0, config.recipe), config)
    batches = draw(5, 4, 5, 8).float()
    trainer.update(batches[0])
    tensors, meta = trainer.state()
    saved = {name: value.clone() for name, value in tensors.items()}
    for lowered in (0.25, 0.0625):
        trainer.update(batches[1])
        noise, batch = trainer.noise.get_state(), trainer.batches
        remedy = trainer.roll_back({name: value.clone() for name, value in saved.items()}, meta)
        assert remedy == f"learning rate and step size times {lowered:g}"
        assert torch.equal(trainer.noise.get_state(), noise) and trainer.batches == batch
        assert trainer.lowered == lowered and trainer.updates == 1
        after = trainer.state()[0]
        assert after["model.step_size"] == saved["model.step_size"] * lowered
        changed = [name for name, value in saved.items() if not torch.equal(value, after[name])]
        assert changed == ["model.step_size", "process0.noise"]
    assert trainer.update(batches[2])["learning_rate"] == pytest.approx(
        0.0625 * training.learning_rate_factor(1, config.optimiser) * config.optimiser.learning_rate)


def test_patience_is_for_updates_in_a_row(runs, monkeypatch):
    Faulty(monkeypatch, spoiled_batch, {2, 3, 5, 6, 8})
    folder = trained(runs)
    assert trouble_of(folder) == {"skipped": 5, "row": 0, "spikes": 0, "rollbacks": 0}


def test_after_some_returns_it_stops_and_can_be_mended(runs, monkeypatch):
    with monkeypatch.context() as patch:
        Faulty(patch, spoiled_batch, range(5, 100))
        with pytest.raises(training.RunError) as failure:
            trained(runs, "faults.patience=2", "faults.rollbacks=1")
    folder = runs / "001"
    assert str(failure.value) == (
        f"{folder}: 2 updates in a row weren't finite, and it went back often enough; "
        "lower optimiser.learning_rate or model.step_size")
    assert [row["kind"] for row in events_of(folder)] == [
        "skipped", "skipped", "rolled back", "skipped", "skipped", "gave up"]
    assert not (folder / "model.safetensors").exists() and not (folder / "result.json").exists()
    assert_finite(folder)
    training.resume(folder, progress=False)
    assert [row["kind"] for row in events_of(folder)] == ["resumed"]
    assert [row["update"] for row in log_of(folder)] == [*range(1, 9)]


@pytest.mark.parametrize("update, told", [(4, "after update 4: "), (5, "after update 5: ")])
def test_a_state_that_is_not_finite_is_never_saved(runs, update, told):
    """Neither when it is time to save nor when the run is told to stop."""
    spoilt = []

    def callback(row):
        if row["update"] == update and not spoilt:
            spoilt.append(trainers[-1])
            spoiled_memory(trainers[-1], None, math.nan)
            return update == 5

    with pytest.MonkeyPatch.context() as patch:
        trainers = []
        watched = lambda *given, **named: trainers.append(Trainer(*given, **named)) or trainers[-1]
        Trainer = training.Trainer
        patch.setattr(training, "Trainer", watched)
        stops = pytest.raises(training.Stopped, match="stopped after update 4 of 8") if update == 5 else None
        with stops or contextlib.nullcontext():
            training.train(tiny(), runs, progress=False, callback=callback)
    folder, back = runs / "001", 2 if update == 4 else 4
    (event,) = events_of(folder, "rolled back")
    assert event["update"] == back and event["what"].startswith(told + "adamw.exp_avg_sq.")
    assert "holds values that aren't finite: not saved" in event["what"]
    assert_finite(folder)
    assert (folder / "model.safetensors").exists() == (update == 4)


def test_every_process_knows_what_is_not_saved(tmp_path):
    """Not only the one that writes: all go back together."""
    config = tiny()
    trainer = training.Trainer(training.make_learner(config.model, 8, 0, config.recipe), config)
    spoiled_weights(trainer, None, math.nan)
    for writes in (True, False):
        with pytest.raises(FloatingPointError, match=r"model\.step_size holds values that aren't f"):
            training.Folder(tmp_path, config, writes).save(trainer, {})
    assert [*tmp_path.iterdir()] == []


# Loader workers


def gone(process):
    """Wait until a process has closed what it had open, while it dies."""
    multiprocessing.connection.wait([process.sentinel])


def dead(process):
    """Wait until the system tells that a child has died."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def killing(update, wait):
    """A callback that kills a process that loads data."""
    def callback(row):
        if row["update"] == update:
            (process,) = multiprocessing.active_children()
            os.kill(process.pid, signal.SIGKILL)
            wait(process)
    return callback


@pytest.mark.parametrize("wait", [gone, pytest.param(dead, marks=pytest.mark.skipif(
    not hasattr(os, "waitid"), reason="this system cannot wait for a child without burying it"))])
def test_a_loader_worker_that_is_killed_changes_no_byte(runs, monkeypatch, wait):
    """Nor is its death told amid the update, or whatever else the run is doing then."""
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    whole, handler = trained(runs), signal.getsignal(signal.SIGCHLD)
    folder = training.train(tiny("run.workers=1"), runs, progress=False, callback=killing(3, wait))
    (event,) = events_of(folder)
    assert event["kind"] == "loader" and event["what"].startswith("begun again: ")
    assert_same_end(folder, whole)
    assert signal.getsignal(signal.SIGCHLD) is handler


def dying(error):
    def loader(data, config, trainer):
        yield data.whole(4)
        raise error
    return loader


GONE = [RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        ConnectionRefusedError(111, "Connection refused"), EOFError("got end of file during message")]


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
def test_a_loader_that_always_dies_ends_the_run(runs, monkeypatch, error):
    monkeypatch.setattr(training, "_loader", dying(error))
    told = f"{error}, for the fourth time; give the run more memory, or set run.workers below 2"
    with pytest.raises(training.RunError, match=re.escape(told)):
        trained(runs, "run.workers=2")
    assert [row["what"] for row in events_of(runs / "001", "loader")] == [f"begun again: {error}"] * 3
    assert len(log_of(runs / "001")) == 4


@pytest.mark.parametrize("workers, error", [
    (1, RuntimeError("Caught RuntimeError in DataLoader worker process 0.")),
    (1, FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")),
    (1, RuntimeError("the clips have different lengths")),
    (0, FileNotFoundError("clip.mp4")),
])
def test_a_mistake_in_the_data_is_no_dead_loader(runs, monkeypatch, workers, error):
    monkeypatch.setattr(training, "_loader", dying(error))
    with pytest.raises(type(error), match=str(error)):
        trained(runs, f"run.workers={workers}")
    assert events_of(runs / "001") == []


# Spikes

LOSSES = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(st.lists(LOSSES | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=60), st.integers(1, 30),
       st.floats(0.1, 20))
@settings(max_examples=80, deadline=None)
def test_a_spike_lies_beyond_the_median_of_those_before(losses, window, deviations):
    """As told again from the definition, for each loss; what isn't finite is none and isn't remembered."""
    spikes, seen = Spikes(window, deviations, least=5), []
    for loss in losses:
        before, past = list(spikes.losses), seen[-window:]
        assert before == past
        expected = False
        if math.isfinite(loss) and len(past) >= 5:
            middle = statistics.median(past)
            spread = 1.4826 * statistics.median([abs(value - middle) for value in past])
            expected = loss > middle + deviations * max(spread, abs(middle) / 1000)
        assert spikes(loss) is expected
        seen += [loss] if math.isfinite(loss) else []


@given(st.floats(0.01, 100), st.lists(st.floats(-1, 1), min_size=1, max_size=120), st.integers(20, 50))
@settings(max_examples=60, deadline=None)
def test_noise_as_large_as_it_always_is_makes_no_spike_and_a_leap_beyond_it_does(level, noise, window):
    """Within half a percent of a level: ten deviations are at least one percent of the median."""
    spikes = Spikes(window)
    losses = [level * (1 + 0.0049 * value) for value in noise]
    assert not any(map(spikes, losses))
    expected = len(noise) >= 20
    assert spikes(1e3 * level) is expected
    assert [spikes(value) for value in (math.nan, math.inf, -math.inf)] == [False] * 3


def test_a_spike_is_noted_and_trains_on(runs, monkeypatch):
    monkeypatch.setattr(training, "Spikes", lambda *given, **named: Spikes(*given, least=3, **named))
    Faulty(monkeypatch, lambda trainer, batch, wrong: batch * wrong, {5}, 1e3)
    folder = trained(runs, "model.kind=transformer")
    assert trouble_of(folder) == {"skipped": 0, "row": 0, "spikes": 1, "rollbacks": 0}
    assert [row["spike"] for row in log_of(folder)] == [False] * 5 + [True] + [False] * 2
    told = f"loss {log_of(folder)[5]['loss']:.4g}"
    assert events_of(folder) == [{"update": 6, "batch": 6, "kind": "spike", "what": told}]


# Looks at the inner walk


@pytest.fixture
def seen(make_model, draw):
    """What a look sees of a model with some step size, and with a slope that may mislead."""
    def see(step_size, slope=1.0):
        model = make_model(step_size=step_size, state_dim=16)
        inner = model.landscape
        model.landscape = lambda states: Sloped(inner(states), slope)
        return look(model, draw(4, 5, 16), 3, torch.Generator().manual_seed(0))
    return see


class Sloped:
    """A landscape whose gradient is told wrongly by a factor."""

    def __init__(self, landscape, slope):
        self.landscape, self.slope = landscape, slope

    def __call__(self, y):
        return self.landscape(y)

    def gradient(self, y, create_graph=False):
        state = sampler.evaluate(self.landscape, y, create_graph)
        return state.energy, self.slope * state.grad


def test_a_good_walk_raises_no_alarm(seen):
    found = seen(0.3)
    assert found.alarms == [] and found.energy_gap > 0 and found.inner_gradient > 0
    assert found.rising < 0.5 and 0 < found.way < FAR


def test_a_flat_landscape_raises_an_alarm(seen):
    (line,) = seen(0.3, slope=1e-9).alarms
    assert line.endswith("the landscape is flat") and line.startswith("the energy falls by ")


def test_a_rising_energy_raises_an_alarm(seen):
    found = seen(0.3, slope=-1.0)
    assert found.rising > 0.5
    assert f"the energy rises in {found.rising:.0%} of the walks: lower the step size" in found.alarms


def test_a_walk_that_goes_far_raises_an_alarm(seen):
    found = seen(1e4)
    assert found.way > FAR
    assert f"walks end {found.way:.3g} lengths of a state away: lower the step size" in found.alarms


def test_a_walk_that_is_not_finite_raises_an_alarm(seen):
    assert "100% of the walks are not finite: lower the step size" in seen(0.3, slope=math.nan).alarms


def test_alarms_are_noted_where_they_were_raised(runs):
    folder = trained(runs, "model.step_size=1e-4", "run.monitor_every=3", "optimiser.step_size_multiplier=0")
    assert [(row["update"], row["kind"]) for row in events_of(folder)] == [
        (number, "alarm") for number in (1, 3, 6)]
    assert all(row["what"].endswith("the landscape is flat") for row in events_of(folder))
    assert ["energy_gap" in row for row in log_of(folder)] == [
        number in (1, 3, 6) for number in range(1, 9)]
