"""The command `ebwm play`: a game and its learned copy on a page of this machine."""

import argparse
import errno
import json
import sys
import threading
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import refusal
from ..usage import Parser, UsageError

if TYPE_CHECKING:  # imports torch
    from .play import Session

__all__ = ["HOST", "add_play", "answer", "page", "serve", "source"]

HOST, PORT, MOST = "127.0.0.1", 8731, 10_000  # address, default port, and bytes of a request
FOLDER = Path(__file__).parent
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>ebwm play</title><link rel="icon" href="data:,">
<style>:root {{ color-scheme: light dark; }} body {{ margin: 0; background: light-dark(#ffffff, #0d1117); }}
{style}</style></head><body><main id="play"></main><script type="module">
{script}
const call = async (path, body) => {{
  const reply = await fetch("/" + path, {{ method: "POST", headers: {{ "Content-Type": "application/json" }},
    body: JSON.stringify(body) }}).catch(() => {{ throw new Error("ebwm play has ended; start it again"); }});
  const summary = await reply.json();
  if (!reply.ok) throw new Error(summary.error);
  return summary;
}};
const root = document.getElementById("play"), first = await call("state", {{}});
document.addEventListener("keydown", view(root, first, call));
</script></body></html>
"""


def add_play(
    parser: Parser,  # parser of `ebwm play`
) -> None:
    """Add the options to a parser."""
    option = parser.add_argument
    option("name", nargs="?", metavar="RUN", help="folder or name of a run on a game; none: a small model, trained when it is first needed")
    option("--game", metavar="GAME", help="push:CELLS, minigrid:NAME or atari:NAME; default: that of the run, or push:5")
    option("--mode", default="track", metavar="MODE", help="track: predict from true frames; dream: from predictions; default: track")
    option("--seed", type=int, default=0, metavar="N", help="seed of the game; default: 0")
    option("--port", type=int, default=PORT, metavar="N", help=f"port of the page, 0: any free one; default: {PORT}")
    option("--no-browser", action="store_true", help="do not open a browser")
    parser.set_defaults(run=_play)


def _play(options: argparse.Namespace) -> int:
    try:
        session = _session(options)
    except ValueError as error:
        raise error if isinstance(error, UsageError) else UsageError(str(error)) from error
    server = serve(session, options.port)
    address = f"http://{HOST}:{server.server_address[1]}/"
    print(f"{session.player.game.name}: {address} (stop with Ctrl+C)", flush=True)
    if not options.no_browser:
        threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0


def _session(options: argparse.Namespace) -> "Session":
    """The session of the options; without a run, a small model is trained or found."""
    from .. import settings
    from ..training.history import find
    from . import play

    runs = settings.load().runs
    if options.name:
        folder = find(options.name, runs)
    else:
        name = play.make_game(options.game or play.DEFAULT).name
        folder = play.small_run(name, runs) or _train_small(name, runs)
    return play.Session(play.open_run(folder, options.game), options.seed, options.mode)


def _train_small(name: str, runs: Path) -> Path:
    """The folder of a small model, after saying that one is trained; a stop by a signal is an interruption."""
    from ..training.run import Stopped
    from . import play

    print(f"{name}: no small model in {runs} yet; one is trained first, in about a minute", file=sys.stderr, flush=True)
    try:
        return play.train_small(name, runs, progress=sys.stderr.isatty())
    except Stopped:
        raise KeyboardInterrupt from None


# The server


def serve(
    session: "Session",  # that is played
    port: int = 0,  # 0: any free one
) -> ThreadingHTTPServer:  # bound to this machine; `serve_forever` starts it
    """A server of the page and of a session."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/" and self._here()
            self._send(200 if known else 404, page() if known else "not found", "text/html; charset=utf-8")

        def do_POST(self) -> None:
            size = self.headers.get("Content-Length", "0")
            asked = self.headers.get("Content-Type") == "application/json" and size.isdecimal() and int(size) <= MOST
            if not (asked and self._here()):
                self._send(403, json.dumps({"error": "only for the page of ebwm play"}))
                return
            content = self.rfile.read(int(size))
            with lock:
                code, body = answer(session, self.path.strip("/"), content)
            self._send(code, json.dumps(body))

        def _here(self) -> bool:
            """Whether the request comes from a page of this server, not from another site by a name of this machine."""
            return self.headers.get("Host", "").partition(":")[0] in (HOST, "localhost")

        def _send(self, code: int, body: str, kind: str = "application/json") -> None:
            content = body.encode()
            self.send_response(code)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        used = getattr(error, "errno", None) == errno.EADDRINUSE
        rule = "is in use" if used else "must be a free port from 1024 to 65535"
        raise refusal("--port", port, rule, "choose another, or 0 for any free one", UsageError) from error


def answer(
    session: "Session",  # changed by the request
    path: str,  # "state", "press", "reset" or "mode"
    body: bytes,  # JSON: action and event, seed, or mode
) -> tuple[int, dict[str, Any]]:  # HTTP status, and the summary of the session or an error
    """Answer a request of the page."""
    requests = {"state": lambda: None, "press": session.press, "reset": session.reset, "mode": session.set_mode}
    try:
        requests[path](**json.loads(body))
    except (KeyError, TypeError, ValueError) as error:
        return 400, {"error": str(error)}
    return 200, session.summary()


def page() -> str:  # HTML without external resources
    """The page."""
    return PAGE.format(script=source("js"), style=source("css"))


def source(
    kind: str,  # "js" or "css"
) -> str:
    """The part of the view that the page and the widget share; the script defines the function `view`."""
    return (FOLDER / f"play.{kind}").read_text(encoding="utf-8")
