"""The view of a session in JupyterLab: buttons and, after a click on it, keys."""

import json
from typing import Any

from ..compat import require
from .play import Session
from .play_page import answer, source

__all__ = ["play_widget"]

RENDER = """
function render({ model, el }) {
  const waiting = new Map();
  let last = 0;
  model.on("msg:custom", ({ id, code, body }) => {
    if (!waiting.has(id)) return;
    const [resolve, reject] = waiting.get(id);
    waiting.delete(id);
    if (code === 200) resolve(body); else reject(new Error(body.error));
  });
  const call = (path, body) => new Promise((resolve, reject) => {
    waiting.set(++last, [resolve, reject]);
    model.send({ id: last, path, body });
  });
  const root = document.createElement("div");
  el.append(root);
  view(root, model.get("latest"), call);
}
export default { render };
"""


def play_widget(
    session: Session,  # that is played
) -> Any:  # widget, for display
    """A widget of a session; it needs the extra `ebwm[figures]`."""
    anywidget, traitlets = require("anywidget", "figures"), require("traitlets", "figures")

    class Play(anywidget.AnyWidget):
        _esm, _css = source("js") + RENDER, source("css")
        latest = traitlets.Dict().tag(sync=True)  # from which a further view starts

    made = Play(latest=session.summary())

    def received(_: Any, message: dict[str, Any], buffers: Any) -> None:
        code, body = answer(session, message["path"], json.dumps(message["body"]).encode())
        made.latest = body if code == 200 else made.latest
        made.send({"id": message["id"], "code": code, "body": body})

    made.on_msg(received)
    return made
