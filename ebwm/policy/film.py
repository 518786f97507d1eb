"""Films of episodes, with the energy of each predicted chunk below the picture."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..checks import refusal, whole
from ..compat import require
from ..files import write_whole
from ..usage import Failure, UsageError
from .rollout import Actor, EpisodeResult, run_episodes
from .simulators import Disturbance, Simulator

__all__ = ["STRIP", "compose", "energy_strip", "film_episode", "framed", "pictured_episode", "write_episode", "write_film"]

Picture = UInt8[np.ndarray, "height width 3"]

STRIP = 4  # height of the picture, as a multiple of that of the strip
LOWEST = 16  # pixels: the strip is at least so high, for the text and some rows of the curve
DARK, GRID, LINE, TEXT = (13, 17, 23), (48, 54, 61), (86, 180, 233), (230, 237, 243)
ENDS = {"success": (0, 158, 115), "failure": (213, 94, 0), "error": (213, 94, 0), "crashed": (213, 94, 0)}
HELD = 1.0  # seconds for which the last frame, framed in green or red, stays
GLYPHS = {  # five rows of three pixels, a row as an octal digit
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71111",
    "8": "75757", "9": "75717", ".": "00002", "-": "00700", "+": "02720", "e": "07647", " ": "00000", "E": "74647",
    "G": "74557", "N": "65555", "P": "75744", "R": "65655", "S": "74717", "T": "72222", "Y": "55222",
}  # fmt: skip


def film_episode(
    policy: Actor,  # that acts
    simulator: Simulator,  # in which it acts, with a picture
    seed: int,  # of the episode
    path: Path,  # file to write, which ends in .mp4
    disturbance: Disturbance | None = None,  # of the episode
    size: int = 320,  # pixels along each side of the picture
    rate: int = 20,  # frames a second; one frame a step
) -> EpisodeResult:  # of the episode
    """Run an episode and write a film of it; the frame around the last picture is green after success, else red."""
    _check(path, size, rate)
    result, frames = pictured_episode(policy, simulator, seed, disturbance, size)
    write_episode(frames, result, path, rate)
    return result


def pictured_episode(
    policy: Actor,  # that acts
    simulator: Simulator,  # in which it acts, with a picture
    seed: int,  # of the episode
    disturbance: Disturbance | None = None,  # of the episode
    size: int = 320,  # pixels along each side of the picture
) -> tuple[EpisodeResult, list[Picture]]:  # a picture before each step, and after the last unless the simulator crashed
    """Run an episode and keep its pictures."""
    frames: list[Picture] = []
    watch = lambda _, simulator, chunks: frames.append(simulator.picture(size))
    [result] = run_episodes(policy, [simulator], [seed], disturbance, watch=watch)
    if result.outcome != "crashed":
        frames.append(simulator.picture(size))
    if not frames:
        raise Failure(f"seed={seed}: the simulator failed before the first frame ({result.message})")
    return result, frames


def write_episode(
    frames: list[Picture],  # of `pictured_episode`
    result: EpisodeResult,  # of the episode
    path: Path,  # file to write, which ends in .mp4
    rate: int = 20,  # frames a second; one frame a step
) -> None:
    """Write a film of an episode with its energies; the frame around the last picture is green after success, else red."""
    frames = compose(frames, result)
    ended = framed(frames[-1], ENDS[result.outcome], max(2, len(frames[-1]) // 60))
    write_film(frames + [ended] * round(HELD * rate), path, rate)


def _check(path: Path, size: int, rate: int) -> None:
    whole("size", size, 32, 4096)
    whole("rate", rate, most=240)
    if Path(path).suffix != ".mp4":
        raise refusal("path", str(path), "must end in .mp4", error=UsageError)
    require("av", "video")


def compose(
    frames: list[Picture],  # pictures before each step and after the last
    result: EpisodeResult,  # of the episode
) -> list[UInt8[np.ndarray, "higher width 3"]]:  # with the strip below them if the chunks have energies
    """Add the energies of an episode to its pictures; the curve reaches to the present."""
    chunks = [chunk for chunk in result.chunks if chunk.get("energy") is not None]
    if not chunks:
        return frames
    return [np.concatenate([frame, energy_strip(chunks, step, len(frames), frame.shape[1])])
            for step, frame in enumerate(frames)]


def energy_strip(
    chunks: list[dict],  # with "at", "energy" and "steps"
    step: int,  # the present
    length: int,  # number of frames of the episode
    width: int,  # in pixels
) -> UInt8[np.ndarray, "strip width 3"]:
    """The energy of the last chunk as a number, and of all so far as a curve on the axes of the whole episode."""
    height, energies = max(LOWEST, width // STRIP), [chunk["energy"] for chunk in chunks]
    strip = np.full((height, width, 3), DARK, np.uint8)
    scale = max(1, width // 160)
    top, bottom = 9 * scale, height - 3 * scale
    strip[[top, bottom - 1]] = GRID
    low, high = min(energies), max(energies)
    place = lambda energy: bottom - 1 - (energy - low) / (high - low or 1.0) * (bottom - 1 - top)
    past = [number for number, chunk in enumerate(chunks) if chunk["at"] <= step]
    if past:
        columns = np.arange(max(1, round((step + 1) / length * width)))
        starts = [chunks[number]["at"] for number in past]
        now = np.maximum(np.searchsorted(starts, columns / width * length, side="right") - 1, 0)
        _draw(strip, np.array([place(energies[number]) for number in past])[now].round().astype(int), scale)
        last = chunks[past[-1]]
        steps = f"   STEPS {last['steps']:g}" if last.get("steps") is not None else ""
        _write(strip, f"ENERGY {last['energy']:.4g}{steps}", scale)
    return strip


def _draw(strip: Picture, heights: np.ndarray, thickness: int) -> None:
    """Draw a curve, given as a row for each column, with its jumps."""
    before = np.append(heights[:1], heights[:-1])
    for column, (one, other) in enumerate(zip(heights, before, strict=True)):
        strip[max(0, min(one, other) - thickness // 2):max(one, other) + (thickness + 1) // 2, column] = LINE


def _write(strip: Picture, text: str, scale: int) -> None:
    """Write a text of digits and a few capital letters in the corner."""
    marks = np.array([[[int(row) >> bit & 1 for bit in (3, 2, 1, 0)] for row in GLYPHS[sign]] for sign in text])
    pixels = marks.transpose(1, 0, 2).reshape(5, -1).repeat(scale, 0).repeat(scale, 1).astype(bool)
    area = strip[2 * scale:7 * scale, 4 * scale:4 * scale + pixels.shape[1]]
    area[pixels[:, :area.shape[1]]] = TEXT


def framed(
    picture: Picture,
    colour: tuple[int, int, int],  # red, green, blue
    border: int,  # width in pixels
) -> Picture:
    """A picture with a border of a colour over its edge."""
    found = np.full_like(picture, colour)
    found[border:-border, border:-border] = picture[border:-border, border:-border]
    return found


def write_film(
    frames: list[Picture],  # of one size, at least 1
    path: Path,  # file to write, which ends in .mp4
    rate: int = 20,  # frames a second
) -> None:
    """Write pictures as H.264, or as MPEG-4 where that is not available; odd sizes lose a row or a column."""
    av = require("av", "video")
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    height, width = (size - size % 2 for size in frames[0].shape[:2])

    def write(draft: Path) -> None:
        with av.open(str(draft), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(rate))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for picture in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    write_whole(Path(path), write)
