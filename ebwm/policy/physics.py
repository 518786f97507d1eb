"""What the simulators on MuJoCo share: pushes and drops of an object, and pictures with or without a display."""

import atexit
import importlib
import os
import platform
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ebwm.compat import MissingPart, require
from ebwm.policy.interface import Scene

__all__ = ["Camera", "Physics"]

LIFTED = 0.015  # height above its lowest place from which on an object counts as lifted, in metres
SCATTER = 0.03  # largest distance along each axis between the start and a dropped object, in metres

REMEDY = "set MUJOCO_GL=egl (apt-get install libegl1 libgl1-mesa-dri) or MUJOCO_GL=osmesa (apt-get install libosmesa6)"


class Camera:
    """One camera of a model, rendered off screen.

    The environment variable MUJOCO_GL chooses the library; without it Linux uses EGL where there is no display.
    """

    def __init__(
        self,
        model: Any,  # MjModel
        name: str,  # of the camera
        size: int,  # pixels along each side
        upside_down: bool = False,  # whether the camera is
        hidden: tuple[int, ...] = (),  # groups of shapes that are not drawn
    ):
        self.mujoco = require("mujoco", "policy")
        self.model, self.size, self.turn = model, size, upside_down
        model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(size, model.vis.global_.offheight)
        try:
            self.context = _library()(size, size)
            self.context.make_current()
            self.buffer = self.mujoco.MjrContext(model, self.mujoco.mjtFontScale.mjFONTSCALE_150.value)
        except Exception as error:  # each library fails in its own ways
            reason = str(error).partition("\n")[0]
            raise MissingPart(f"MuJoCo cannot draw pictures here ({reason}): {REMEDY}") from error
        atexit.register(self.close)  # before the library itself goes
        self.mujoco.mjr_setBuffer(self.mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.buffer)
        self.scene = self.mujoco.MjvScene(model, 10_000)
        self.options = self.mujoco.MjvOption()
        for group in hidden:
            self.options.geomgroup[group] = 0
        self.view = self.mujoco.MjvCamera()
        self.view.type = self.mujoco.mjtCamera.mjCAMERA_FIXED
        self.view.fixedcamid = model.camera(name).id

    def picture(
        self,
        data: Any,  # MjData
    ) -> UInt8[np.ndarray, "size size 3"]:
        """The scene as an RGB image."""
        self.context.make_current()
        image = np.empty((self.size, self.size, 3), np.uint8)
        rectangle = self.mujoco.MjrRect(0, 0, self.size, self.size)
        everything = self.mujoco.mjtCatBit.mjCAT_ALL.value
        self.mujoco.mjv_updateScene(self.model, data, self.options, None, self.view, everything, self.scene)
        self.mujoco.mjr_render(rectangle, self.scene, self.buffer)
        self.mujoco.mjr_readPixels(image, None, rectangle, self.buffer)
        return (image[:, ::-1] if self.turn else image[::-1]).copy()  # rows come from the bottom

    def close(self) -> None:
        """Release the memory of the graphics library."""
        atexit.unregister(self.close)
        self.context.make_current()
        self.buffer.free()
        self.context.free()


class Physics(Scene):
    """A scene of MuJoCo with an object that is free to move.

    `Disturbance.push` is a velocity in m/s that the object gets in a horizontal direction of the seed. "drop" puts a
    lifted object down near the place where it started.
    """

    model: Any  # MjModel
    data: Any  # MjData
    joint: int  # number of the object's free joint
    view: dict[str, Any]  # arguments of `Camera`: name, upside_down, hidden

    def __init__(self, image: int | None = None):
        super().__init__(image)
        self.cameras: dict[int, Camera] = {}

    @property
    def _pose(self) -> np.ndarray:
        """Position and quaternion of the object, as a view."""
        first = self.model.jnt_qposadr[self.joint]
        return self.data.qpos[first:first + 7]

    @property
    def _velocity(self) -> np.ndarray:
        """Velocity and rotation of the object, as a view."""
        first = self.model.jnt_dofadr[self.joint]
        return self.data.qvel[first:first + 6]

    def _rest(self) -> None:
        """Keep the place where the object starts."""
        self.rest, self.lowest = self._pose.copy(), self._pose[2]

    def _horizontal(self, length: float) -> np.ndarray:
        """A vector in a random horizontal direction."""
        angle = self.random.uniform(0, 2 * np.pi)
        return length * np.array((np.cos(angle), np.sin(angle)))

    def _push(self, strength: float) -> None:
        self._velocity[:2] += self._horizontal(strength)

    def _is_lifted(self) -> bool:
        self.lowest = min(self.lowest, self._pose[2])
        return bool(self._pose[2] > self.lowest + LIFTED)

    def _drop(self) -> None:
        self._pose[:] = self.rest
        self._pose[:2] += self.random.uniform(-SCATTER, SCATTER, 2)
        self._velocity[:] = 0

    def picture(self, size: int = 256) -> UInt8[np.ndarray, "size size 3"]:
        """The scene from a fixed camera."""
        if size not in self.cameras:
            self.cameras[size] = Camera(self.model, size=size, **self.view)
        return self.cameras[size].picture(self.data)

    def close(self) -> None:
        for camera in self.cameras.values():
            camera.close()
        self.cameras.clear()


def _library() -> type:
    """The class of an OpenGL context."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    on_linux = platform.system() == "Linux"
    if on_linux and chosen in ("egl", "osmesa"):
        return importlib.import_module(f"mujoco.{chosen}").GLContext
    if on_linux and not chosen and not os.environ.get("DISPLAY"):
        return importlib.import_module("mujoco.egl").GLContext
    return importlib.import_module("mujoco.gl_context").GLContext
