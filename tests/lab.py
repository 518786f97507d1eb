"""JupyterLab with a browser, for tests of widgets."""

import mimetypes
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
from urllib.parse import urlparse

ROOT = Path(__file__).parents[1]
CONNECTED = """() => {
    const panel = window.jupyterapp?.shell?.currentWidget, kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
SITE = "http://site.test/"
WINDOW = dict(width=1400, height=1250)  # pixels
POLL = 50  # ms; conditions that are asked at every frame make the browser draw all of them
HEAD = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
FINISHED = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code');
    return cells.every(w => w.model.executionCount !== null && w.model.executionState !== 'running');
}"""
CLEAN = """
import asyncio, ipywidgets
await asyncio.sleep(1)
ipywidgets.Widget.close_all()
%reset -f
"""  # after a second, in which pictures that come later are drawn
OPEN = """async ([path, code]) => {
    const {commands, shell} = window.jupyterapp, last = shell.currentWidget, {kernel} = last.sessionContext.session;
    await commands.execute('notebook:clear-all-cell-outputs');
    await kernel.requestExecute({code}).done;
    await commands.execute('docmanager:open', {path, factory: 'Notebook', kernel: {id: kernel.id}});
    last.dispose();
}"""  # a kernel and a page need seconds to start
PATIENT = """
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    AbortSignal.timeout = (milliseconds) => timeout(100 * milliseconds);
"""  # anywidget drops the messages of a widget that needs more than 2 s to load; plotly has 5 MB


@contextmanager
def serve(folder: Path, limit: float = 120) -> Iterator[str]:
    """JupyterLab on a folder, without the user's configuration: its address with the token."""
    home = folder / ".lab"
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    variables = os.environ | {name: str(home / name.lower()) for name in names} | {"PYTHONPATH": str(ROOT)}
    options = ["--no-browser", "--port=0", "--ip=127.0.0.1", "--allow-root", "--LabApp.expose_app_in_browser=True",
               f"--LabApp.workspaces_dir={home / 'workspaces'}", f"--LabApp.user_settings_dir={home / 'settings'}"]
    quiet = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    path, deadline = home / "lab.log", time.monotonic() + limit
    with path.open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], cwd=folder, stdout=log,
                                  env=variables, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", path.read_text(encoding="utf-8"))):
                assert time.monotonic() < deadline and server.poll() is None, path.read_text(encoding="utf-8")[-2000:]
                time.sleep(0.1)
            yield found[0]
        finally:
            server.terminate()  # also ends the kernels
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


@contextmanager
def started(folder: Path, chromium: str, limit: float = 300) -> Iterator[Callable]:
    """JupyterLab on a folder and a browser: a function that opens a notebook, and returns the page."""
    from playwright.sync_api import sync_playwright

    with serve(folder) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            page = browser.new_page(viewport=WINDOW)
            page.set_default_timeout(1000 * limit)
            page.add_init_script(PATIENT)
            yield lambda name: _run_all(page, address, name)
        finally:
            browser.close()


def _run_all(page: Any, address: str, name: str) -> Any:
    """Open a notebook instead of the last one, with its kernel but neither its names nor widgets; run all cells."""
    path, query = address.split("?")
    if page.url == "about:blank":
        page.goto(f"{path}/tree/{name}?{query}&reset")
    else:
        page.evaluate(OPEN, [name, CLEAN])
    page.wait_for_function(CONNECTED, polling=POLL)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(FINISHED, polling=POLL)
    page.wait_for_function(CONNECTED, polling=POLL)
    return page


def chromium() -> str | None:
    """Path of the browser, if it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def wait_until(condition: Callable[[], bool], page: Any, limit: float = 300) -> None:
    """Wait until a condition on the page is true."""
    deadline = time.monotonic() + limit
    while not condition():
        texts = page.locator(".widget-html:visible").all_inner_texts
        assert time.monotonic() < deadline, f"not true after {limit} s; shown: {texts()}"
        page.wait_for_timeout(POLL)


def open_site(browser: Any, files: dict[str, str | Path], problems: list, path: str = "", console: bool = False,
              **options: Any) -> Any:
    """A page of SITE, which has texts or files by path; other hosts that it asks, and its errors, become problems.

    `console`: warnings and errors in the console do, too.
    """
    def answer(route: Any, request: Any) -> None:
        where = urlparse(request.url)
        if where.hostname != urlparse(SITE).hostname:
            problems.append(request.url)
            return route.abort()
        found = files.get(where.path)
        kind = mimetypes.guess_type(where.path)[0] if Path(where.path).suffix else "text/html"
        if isinstance(found, Path):
            return route.fulfill(path=found, content_type=kind)
        return route.fulfill(status=404 if found is None else 200, body=found or "", content_type=kind)

    page = browser.new_context(**{"reduced_motion": "reduce"} | options).new_page()
    page.context.route("**/*", answer)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: console and line.type in ("error", "warning") and problems.append(line.text))
    page.goto(SITE + path)
    return page


@contextmanager
def visiting(browser: Any, **usual: Any) -> Iterator[Callable[..., Any]]:
    """A function like `open_site` for several pages; at the end, none asked another host or raised an error."""
    pages, problems = [], []

    def visit(files: dict[str, str | Path], path: str = "", **options: Any) -> Any:
        pages.append(open_site(browser, files, problems, path, **usual, **options))
        return pages[-1]

    yield visit
    for page in pages:
        page.context.close()
    assert problems == []
