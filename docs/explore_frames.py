"""Recorded states of explorers, for pages of the documentation site, which have no kernel."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ebwm.explore.frames import Settings, compute, included_models

CLIPS, POSITIONS = (0, 1, 2, 3, 4, 5), (1, 4, 7)


def write(
    folder: Path,  # of the scripts of explorers in the built site
) -> None:
    """Write the states of the pages, as scripts that also load from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(frames(), separators=(",", ":"))
    (folder / "frames_data.js").write_text(f"window.ebwmFrames = {text};\n", encoding="utf-8")


def frames() -> dict[str, Any]:
    """Walks of the frames explorer for some clips and positions."""
    models, settings = included_models(), Settings()
    found = [compute(models, replace(settings, clip=clip, position=position))
             for clip in CLIPS for position in POSITIONS]
    return {"note": models.note, "size": [*found[0].truth.shape], "steps": settings.steps, "walks": settings.walks,
            "states": [_state(result) for result in found]}


def _state(result: Any) -> dict[str, Any]:
    """One result; images are bytes, one for each pixel, in base64."""
    settings = result.settings
    numbers = lambda values: [[float(f"{value:.4g}") for value in row] for row in values.T.tolist()]
    return {"clip": settings.clip, "position": settings.position,
            **{name: _bytes(getattr(result, name)) for name in ("context", "truth", "baseline", "candidates")},
            "energies": numbers(result.energies), "errors": numbers(result.errors),
            "last_error": round(result.last_error, 4), "baseline_error": round(result.baseline_error, 4)}


def _bytes(images: Any) -> str:
    return base64.b64encode((images * 255).round().byte().numpy().tobytes()).decode()
