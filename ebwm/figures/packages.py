"""Third-party packages: their names on the package index, and their pinned versions."""

import re
from pathlib import Path

__all__ = ["PINS", "canonical", "distribution", "pins"]

PINS = ("constraints.txt", "constraints-optional.txt")
NAMES = {  # modules whose package has another name
    "PIL": "pillow", "cv2": "opencv-python-headless", "dateutil": "python-dateutil", "pygame": "pygame-ce",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml",
}


def distribution(
    module: str,  # name that is imported, such as "lightning_fabric"
) -> str:  # such as "lightning-fabric"
    """The package that holds a module; the same whether or not it is installed."""
    return canonical(NAMES.get(module, module))


def canonical(
    name: str,  # name of a package
) -> str:
    """The name in lower case, its parts separated by one hyphen each."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(
    root: Path,  # root of the repository
) -> dict[str, str]:  # canonical name to version
    """The pinned versions of the files PINS, as far as they exist."""
    files = [root / name for name in PINS if (root / name).is_file()]
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = (line.partition("==") for line in lines if "==" in line and line[0] != "#")
    return {canonical(name): version.strip() for name, _, version in pairs}
