"""Build the documentation site, or README.md.

Usage: python docs/build.py [site | sphinx | quarto | readme] [--version NAME]

`site` uses quarto if it is installed, else Sphinx; both read the notebooks that nbdev has processed. `readme` writes
the answers on record into the notebooks of figures, the pages of results, the animation of the home page, and
nbs/llms.txt, which lists all modules, too. With
`--version`, Sphinx builds into _docs/NAME, beside the versions there, and each page has a selector of versions; without
it, _docs is replaced.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROCESSED, SITE = ROOT / "_proc", ROOT / "_docs"
PAGES, BUILT = PROCESSED / "sphinx", PROCESSED / "html"

FRONT = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}/index.html">\n'


def sphinx(version: str = "", only: str = "") -> int:
    """Process by nbdev, adapt, and build with Sphinx. Only models on pages need the network.

    `only`: a regular expression of sources in the folder of notebooks; other pages are left out, and links to them
    lead nowhere. Without it, warnings are errors.
    """
    import adapter
    import explorers

    if not _process(only):
        return 1
    adapter.write_pages(ROOT, PROCESSED, PAGES, only)
    strict = ["-Q"] if only else ["-q", "-W", "--keep-going"]
    options = [*strict, "-n", "-E", "-d", PROCESSED / "doctrees", "-c", ROOT / "docs",
               "-A", f"docs_version={version}"]
    code = subprocess.call([sys.executable, "-m", "sphinx", *options, PAGES, BUILT], cwd=ROOT)
    if code == 0:
        explorers.write(BUILT / "_static" / "explore")
        shutil.copy(PAGES / "llms.txt", BUILT)
        if (PAGES / adapter.FILMS).is_dir():
            shutil.copytree(PAGES / adapter.FILMS, BUILT / adapter.FILMS)
        place(BUILT, SITE, version)
    return code


def place(built: Path, site: Path, version: str = "") -> None:
    """Move a built site to its place; that of a version becomes the newest in versions.json and on the front page."""
    target, listed = site / version, site / "versions.json"
    shutil.rmtree(target if listed.is_file() else site, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    built.rename(target)
    if version:
        known = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else []
        others = [name for name in known if name != version and (site / name).is_dir()]
        listed.write_text(json.dumps([version, *others]) + "\n", encoding="utf-8")
        (site / "index.html").write_text(FRONT.format(version), encoding="utf-8")


def _process(only: str) -> bool:
    from nbdev.serve import proc_nbs

    os.chdir(ROOT)
    try:
        proc_nbs(str(ROOT / "nbs"), n_workers=2, force=True, **({"path_re": f"/nbs/({only})"} if only else {}))
        return True
    except Exception as error:  # nbdev raises a bare Exception that quotes the whole cell
        lines = str(error).strip().splitlines() or [repr(error)]
        print(f"docs: {lines[0].rstrip(' :')}: {lines[-1]}", file=sys.stderr)
        return False


def quarto() -> int:
    """The site of nbdev."""
    from ebwm.compat import MissingPart, system_part

    try:
        system_part("quarto", "https://quarto.org/docs/get-started", "the site of nbdev")
    except MissingPart as error:
        print(f"{error}; without it: python docs/build.py sphinx", file=sys.stderr)
        return 2
    return subprocess.call([Path(sys.executable).parent / "nbdev-docs"], cwd=ROOT)


def site() -> int:
    """The site with quarto if it is installed, else with Sphinx."""
    return quarto() if shutil.which("quarto") else sphinx()


def readme() -> int:
    """README.md from nbs/index.ipynb, its animation, answers in notebooks, the pages of results, and nbs/llms.txt."""
    import animation
    import readme as source
    import records
    import reference
    import sidebar

    from ebwm import settings
    from ebwm.figures.findings import write_answer
    from ebwm.figures.report import write_pages

    for figure in records.figures(ROOT):
        write_answer(figure, settings.load(ROOT))
    write_pages(settings.load(ROOT))
    animation.write(ROOT)
    (ROOT / "README.md").write_text(source.render(ROOT), encoding="utf-8")
    index = reference.plain_index(ROOT / "ebwm", sidebar.LEAD)  # without nbdev's mark, so that it leaves the file
    (ROOT / "nbs" / "llms.txt").write_text(index, encoding="utf-8")
    return 0


COMMANDS = {"site": site, "sphinx": sphinx, "quarto": quarto, "readme": readme}
RESULTS = {readme: "README.md"}
VERSION = re.compile(r"\w[\w.-]*")


def main(arguments: list[str]) -> int:
    """Run one of COMMANDS, and print the path of its result."""
    *command, option, version = arguments if "--version" in arguments[-2:-1] else [*arguments, "", ""]
    name = command[0] if command else "site"
    if len(command) > 1 or name not in COMMANDS:
        print(f"command={' '.join(arguments)!r}: must be one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if option and (not VERSION.fullmatch(version) or COMMANDS[name] not in (site, sphinx)):
        rule = "must be a name such as 0.1, of a site built with sphinx"
        print(f"--version={version!r}: {rule}; python docs/build.py sphinx --version 0.1", file=sys.stderr)
        return 2
    code = sphinx(version) if option else COMMANDS[name]()
    if code == 0:
        print(RESULTS.get(COMMANDS[name], f"_docs/{version + '/' if version else ''}index.html"))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
