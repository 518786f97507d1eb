"""JupyterLab and a browser that looks at it, for tests of what people touch."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CONNECTED = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
FINISHED = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code');
    return cells.every(w => w.model.executionCount !== null && w.model.executionState !== 'running');
}"""


PATIENT = """
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    AbortSignal.timeout = (milliseconds) => timeout(100 * milliseconds);
"""  # anywidget gives a widget 2 s to load and then drops its messages; plotly's 5 MB may need longer


@contextmanager
def serve(
    folder: Path,  # whose notebooks are shown; also holds Lab's own files
    limit: float = 60,  # seconds until it must answer
) -> Iterator[str]:  # address of Lab, with its token
    """JupyterLab on a folder, with nothing of a person's own configuration; ended at the end."""
    home = folder / ".lab"
    own = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"IPYTHONDIR": str(home / "ipython"), "PYTHONPATH": str(ROOT)}
    options = ["--no-browser", "--port=0", "--ip=127.0.0.1", "--allow-root",
               "--LabApp.expose_app_in_browser=True", f"--LabApp.workspaces_dir={home / 'workspaces'}",
               f"--LabApp.user_settings_dir={home / 'settings'}"]
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    log = home / "lab.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, cwd=folder, env={**os.environ, **own}, stdout=file,
                                  stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield _address(server, log, time.monotonic() + limit)
        finally:
            _end(server)


def _address(server: subprocess.Popen, log: Path, deadline: float) -> str:
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"(http://127\.0\.0\.1:\d+/lab)\?token=(\w+)", log.read_text()):
            return found[0]
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    raise RuntimeError(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def _end(server: subprocess.Popen) -> None:
    """Lab ends its kernels when it is asked to end; whatever is left of its group then goes too."""
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def opened(
    notebook: Path,  # below the folder that is served
    chromium: str,  # path of the browser
    limit: float = 120,  # seconds for anything that is waited for
) -> Iterator:  # the page
    """A notebook open in Lab in a browser, all its cells run."""
    from playwright.sync_api import sync_playwright

    with serve(notebook.parent) as address, sync_playwright() as play:
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = play.chromium.launch(executable_path=chromium, args=options)
        try:
            page = browser.new_page(viewport=dict(width=1400, height=1000))
            page.set_default_timeout(1000 * limit)
            page.add_init_script(PATIENT)
            path, query = address.split("?")
            page.goto(f"{path}/tree/{notebook.name}?{query}")
            page.wait_for_function(CONNECTED)
            page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
            page.wait_for_function(FINISHED)
            page.wait_for_function(CONNECTED)
            yield page
        finally:
            browser.close()


def chromium() -> str | None:
    """Where the browser is, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def wait_until(
    condition: Callable[[], bool],  # of the page
    page: Any,  # which goes on while it is waited for
    limit: float = 120,  # seconds
) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not so after {limit} s"
        page.evaluate("() => new Promise(requestAnimationFrame)")
