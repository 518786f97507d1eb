"""Images: sources, splits, patches, and sequences of patches that models are trained on."""

import io
import tracemalloc

import numpy as np
import pytest
import torch

from ebwm import train
from ebwm.data import images as source
from ebwm.data import parts
from ebwm.data.cache import SPLITS
from ebwm.data.configs import PatchesConfig
from ebwm.data.images import START, Images, crops, from_patches, image_splits, split_images, to_patches
from ebwm.data.parts import Parts
from ebwm.data.tasks import load_task
from ebwm.settings import generator
from ebwm.training.learner import load_run

image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize("shape, patch", [((1, 3, 7, 9), 4), ((2, 1, 8, 8), 2), ((1, 1, 5, 5), 5), ((3, 2, 4, 6), 1)])
def test_patches_are_the_squares_of_an_image_row_by_row(shape, patch):
    images = torch.randn(shape, generator=generator(0))
    patches = to_patches(images, patch, pad=True)
    across = -(-shape[3] // patch)
    assert torch.equal(from_patches(patches, patch, shape[1:]), images)
    for number in range(min(patches.shape[1], across * (shape[2] // patch))):
        top, left = number // across * patch, number % across * patch
        found = patches[0, number].reshape(shape[1], patch, patch)[:, :, :min(patch, shape[3] - left)]
        assert torch.equal(found, images[0, :, top:top + patch, left:left + patch])
    assert torch.equal(patches[0, -1].reshape(shape[1], patch, patch)[:, -1, -1], images[0, :, -1, -1])


@pytest.mark.parametrize("given", [False, True])
def test_no_image_is_in_two_splits_whatever_the_order(given):
    drawn = np.random.default_rng(0).integers(256, size=(20, 1, 3, 3)).astype(np.uint8)
    pixels, test = np.concatenate([drawn, drawn[:8]]), given & (np.arange(28) >= 24)  # copies of images 4 to 7
    sets = []
    for order in (np.arange(28), np.random.default_rng(1).permutation(28)):
        parts = split_images(pixels[order], test[order], 0.2, 3)
        sets.append({split: {pixels[order][index].tobytes() for index in part} for split, part in parts.items()})
    assert sets[0] == sets[1] and sum(map(len, sets[0].values())) == len(set.union(*sets[0].values())) == 20
    assert not given or sets[0]["test"] == {image.tobytes() for image in drawn[4:8]}


def write_images(folder, parquet):
    """Twelve images in folders of two classes, two of them in a folder for tests and two with a name that says so."""
    drawn = np.random.default_rng(0).integers(256, size=(12, 6, 9, 3)).astype(np.uint8)
    for number, pixels in enumerate(drawn):
        name = f"{'test' * (number > 9)}{number}.png"
        path = folder / ("test" if number < 2 else "train") / f"class{number % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(path)
    if parquet:
        pyarrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        for split in ("train", "test"):
            paths = sorted((folder / split).rglob("*.png"))
            rows = {"img": [{"bytes": path.read_bytes(), "path": None} for path in paths],
                    "label": [int(path.parent.name[-1]) if split == "train" else path.parent.name for path in paths]}
            for path in paths:
                path.unlink()
            table.write_table(pyarrow.table(rows), folder / f"{split}.parquet")
    return drawn


@pytest.mark.parametrize("parquet", [False, True])
def test_a_folder_of_images_or_of_parquet_files(runs, tmp_path, parquet):
    drawn = write_images(tmp_path, parquet)
    splits = image_splits(str(tmp_path), held_out=0.2)
    assert {split: len(part) for split, part in splits.items()} == {"train": 8, "valid": 2, "test": 2}
    assert {part.tobytes() for part in splits["test"].pixels} == {p.transpose(2, 0, 1).tobytes() for p in drawn[:2]}
    assert sorted(splits["train"].labels.tolist() + splits["valid"].labels.tolist()) == [0] * 5 + [1] * 5
    assert not parquet or splits["test"].labels.tolist() == [-1, -1]  # texts
    small = image_splits(str(tmp_path), size=5, grey=True, train_items=3)
    assert small["train"].shape == (1, 5, 5) and len(small["train"]) == 3
    first = [image_splits(str(tmp_path), held_out=0.2, seed=seed)["train"].digest for seed in (0, 0, 1)]
    assert first[0] == first[1] == splits["train"].digest != first[2]


def write_imagenet(folder, count, parquet):
    """Files as ImageNet has them: JPEG of different sizes and modes, in folders by class or in Parquet."""
    draws, contents = np.random.default_rng(1), []
    for number in range(count):
        mode = ("RGB", "L", "CMYK", "RGB")[number % 4]
        shape = (70 + number % 5, 90 - number % 7, {"RGB": 3, "L": 1, "CMYK": 4}[mode])
        pixels = draws.integers(256, size=shape).astype(np.uint8)
        content = io.BytesIO()
        image.fromarray(pixels.squeeze(), mode if mode == "CMYK" else None).save(content, "JPEG")
        contents.append(content.getvalue())
    if parquet:
        pyarrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        for part in range(2):
            some = range(part, count, 2)
            rows = {"image": [{"bytes": contents[n], "path": f"n0144{n % 3}_{n}.JPEG"} for n in some],
                    "label": [n % 3 for n in some]}
            table.write_table(pyarrow.table(rows), folder / f"train-0000{part}-of-00002.parquet", row_group_size=10)
        return
    for number, content in enumerate(contents):
        path = folder / "ILSVRC/Data/CLS-LOC/train" / f"n0144{number % 3}" / f"n0144{number % 3}_{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("parquet", [False, True])
def test_a_large_source_stays_in_files_and_needs_little_memory(runs, tmp_path, monkeypatch, parquet):
    monkeypatch.setattr(source, "PART", 8)
    monkeypatch.setattr(parts, "BLOCK", 1 << 15)
    write_imagenet(tmp_path, 150, parquet)
    image_splits(str(tmp_path), size=64)  # imports and first use
    tracemalloc.start()
    splits = image_splits(str(tmp_path), size=63)
    made = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    batch, digest, moments = splits["train"][3], splits["train"].digest, splits["train"].mean_std()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pixels, total = splits["train"].pixels, 150 * 3 * 63 * 63
    assert isinstance(pixels, Parts) and len(pixels.paths) == 19 and batch.shape == (3, 63, 63)
    assert parquet or made < total / 2  # a Parquet file of this size is read as a whole
    assert used < total
    whole = splits["train"].whole()
    assert moments == pytest.approx((float(whole.mean()), float(whole.std(correction=0))), abs=1e-5)
    assert digest == Images(pixels[:]).digest and torch.equal(whole[3], batch)
    assert torch.equal(whole[-4:], Images.numbers(pixels[-4:])) and set(splits["train"].labels.tolist()) == {0, 1, 2}


def test_parts_are_one_array(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "BLOCK", 24)
    drawn = np.random.default_rng(0).integers(256, size=(11, 2, 3)).astype(np.uint8)
    paths = [tmp_path / f"{number}.npy" for number in range(3)]
    for path, some in zip(paths, np.split(drawn, [4, 5]), strict=True):
        np.save(path, some)
    whole, rows = Parts(paths), np.array([10, 0, 4, 4, 3])
    assert whole.shape == drawn.shape and whole.size == drawn.size and np.array_equal(whole[:], drawn)
    assert np.array_equal(whole[rows], drawn[rows]) and np.array_equal(whole[-1], drawn[-1])
    assert np.array_equal(whole.take(rows).take(np.array([4, 1]))[:], drawn[[3, 0]])
    assert [len(block) for block in whole.blocks()] == [4, 4, 3]
    np.save(paths[1], drawn[:2, :1])
    with pytest.raises(ValueError, match="paths="):
        Parts(paths)


def test_a_killed_reading_of_images_continues(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "PART", 3)
    monkeypatch.setenv("EBWM_CACHE", str(tmp_path / "cache"))
    write_images(tmp_path, parquet=False)
    count, decode = [], source.decoded

    def failing(*given):
        count.append(given)
        if len(count) == 8:
            raise KeyboardInterrupt
        return decode(*given)

    monkeypatch.setattr(source, "decoded", failing)
    with pytest.raises(KeyboardInterrupt):
        image_splits(str(tmp_path), held_out=0.2)
    found = image_splits(str(tmp_path), held_out=0.2)  # two files of three images were complete
    assert len(count) == 8 + 6 and sum(map(len, found.values())) == 12


def test_images_of_different_sizes_need_a_size(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "PART", 2)
    for number in range(6):
        image.fromarray(np.full((4 + (number == 5), 4, 3), 9 * number, np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match=r"size=None: must be given: 5.png has \(5, 4\) pixels"):
        image_splits(str(tmp_path))
    image.fromarray(np.full((5, 4, 3), 200, np.uint8)).save(tmp_path / "4.png")
    with pytest.raises(ValueError, match=r"size=None: must be given: 4.png has \[5, 4\] pixels, others \[4, 4\]"):
        image_splits(str(tmp_path))


def encoded(picture, kind="png", **options):
    """An image of a source."""
    picture.save(content := io.BytesIO(), kind, **options)
    return source.Encoded("a", content.getvalue(), -1, False)


def test_images_are_upright_by_their_exif_data():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    exif = image.Exif()
    exif[0x112] = 6  # to be turned clockwise
    found = source.decoded(encoded(image.fromarray(pixels), exif=exif), None, True)
    assert np.array_equal(found[0], np.rot90(pixels, -1))


def test_images_that_are_too_large_or_damaged_are_refused_by_name(monkeypatch):
    good = encoded(image.fromarray(np.zeros((40, 40), np.uint8)))
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"source='a': cannot be read as an image \(Image size \(1600"):
        source.decoded(good, None, True)
    monkeypatch.setattr(image, "open", lambda file: (_ for _ in ()).throw(SyntaxError("broken PNG file")))
    with pytest.raises(ValueError, match=r"source=.a.: .*broken PNG file"):
        source.decoded(good, None, True)


def test_names_with_the_word_test_must_leave_images_for_training():
    pixels = np.random.default_rng(0).integers(256, size=(20, 1, 3, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match=r"2 different images beside its test split, .* \(19\)"):
        split_images(pixels, np.arange(20) > 0)


def test_crops_are_squares_of_their_photographs():
    photograph = np.arange(40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
    made = crops([photograph], 5, 16, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(photograph, (16, 16), axis=(0, 1)).reshape(-1, 3, 16, 16)
    assert all((windows == crop).all((1, 2, 3)).any() for crop in made)
    assert not np.array_equal(made, crops([photograph], 5, 16, seed=1, split="test"))


def test_numbers_and_sequences():
    assert Images(np.array([[[[0, 255]]]], np.uint8)).whole().flatten().tolist() == [-1, 1]
    task = load_task(PatchesConfig(patch=3, pad=True, eval_items=7))
    states = task.items("test")
    assert states.shape == (7, 10, 9) and task.scale.restore(states[:, 0]).unique().tolist() == pytest.approx([START])
    part = task.splits["test"]
    assert torch.allclose(part.restored(states[:, 1:]), part.images.whole(), atol=1e-6)
    train_split = task.splits["train"].whole()[:, 1:]
    assert abs(train_split.mean()) < 0.2 and task.digests() != load_task(PatchesConfig(), seed=1).digests()
    assert set(task.digests()) == set(SPLITS)


@pytest.mark.parametrize("kind", ["ebt", "transformer"])
def test_models_of_patches_are_trained_by_name(runs, kind):
    small = ["optimiser.updates=2", "optimiser.batch=4", "eval_every=2", "model.dim=16", "model.depth=1",
             "model.heads=2", "data.eval_items=4", "run.logger=none", f"model.kind={kind}"]
    learner, task, _ = load_run(train("patches", runs, progress=False, overrides=small))
    start = task.scale.standardise(torch.full((1, 1, 4), START))
    assert learner.predict(start, generator(0)).shape == (1, 1, 4) and task.scale.mean[0] < 0
