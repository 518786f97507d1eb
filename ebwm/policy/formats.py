"""Demonstrations on disk: HDF5 files of robomimic, and folders of LeRobot."""

from pathlib import Path

from ebwm.checks import refusal
from ebwm.policy.demonstrations import Demonstrations
from ebwm.policy.lerobot_data import read_lerobot, write_lerobot
from ebwm.policy.robomimic import read_robomimic, write_robomimic
from ebwm.usage import UsageError

__all__ = ["HDF5", "read_demonstrations", "write_demonstrations"]

HDF5 = (".hdf5", ".h5")  # endings of files of robomimic; everything else is a folder of LeRobot


def read_demonstrations(
    source: str | Path,  # an HDF5 file of robomimic, or a folder of LeRobot
    layout: dict[str, int] | None = None,  # robomimic: observations that form a state, and their sizes
    mask: str | None = None,  # robomimic: name of a filter of the file; None: all episodes
    camera: str | None = None,  # whose images to read; None: the only one, if there are images; "": none
    bounded: bool = True,  # refuse actions outside of [-1, 1]
) -> Demonstrations:
    """Read demonstrations of either format."""
    path = Path(source)
    if not path.exists():
        rule = "must be an HDF5 file of robomimic or a folder of LeRobot"
        raise refusal("source", str(source), rule, error=UsageError)
    if not path.is_dir():
        return read_robomimic(path, layout, mask, camera, bounded)
    for name, value in (("layout", layout), ("mask", mask)):
        if value is not None:
            raise refusal(name, value, "needs an HDF5 file", f"{source} is a folder of LeRobot", UsageError)
    return read_lerobot(path, camera, bounded)


def write_demonstrations(
    target: str | Path,  # a file that ends in .hdf5 or .h5, or a new folder for LeRobot
    demonstrations: Demonstrations,
    layout: dict[str, int] | None = None,  # sizes of the parts of a state by name, as of a simulator
) -> None:
    """Write demonstrations in the format that the name of the target tells."""
    write = write_robomimic if Path(target).suffix in HDF5 else write_lerobot
    write(Path(target), demonstrations, layout)
