"""Results of the benchmark as a table and two plots."""

from collections import defaultdict
from pathlib import Path

from benchmarks.cases import COMPILED, EAGER, MANUAL, OFFICIAL, PLAIN
from ebwm.compat import require
from ebwm.figures.style import colour, style

ROLES = {PLAIN: "truth", OFFICIAL: "transformer", EAGER: "floor", MANUAL: "ebt", COMPILED: "gru"}
AXES = {"steps": "sampling steps, n", "length": "states in the context, S (256 in the batch)",
        "dim": "width of the model, D", "batch": "contexts in the batch, B"}


def _cell(times: dict, name: str) -> str:
    if name not in times:
        return ""
    t = times[name]
    return f"{t['median'] * 1e3:,.0f} ({t['low'] * 1e3:,.0f} to {t['high'] * 1e3:,.0f})"


def _row(record: dict) -> list[str]:
    times = record["seconds"]
    ratio = lambda a, b: f"{times[a]['median'] / times[b]['median']:.2f}" if a in times and b in times else ""
    bound = f"{record['bound']:.2f}" if record["bound"] else ""
    return [record["case"]["name"], *(_cell(times, name) for name in ROLES),
            ratio(OFFICIAL, MANUAL), ratio(MANUAL, PLAIN), bound]


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table(result: dict) -> str:
    """Milliseconds, ratios, memory and differences, in Markdown."""
    machine = result["machine"]
    head = ["", *ROLES, "official / manual", "manual / Transformer++", "lower bound"]
    text = (f"{machine['processor']}, {machine['threads']} thread(s), torch {machine['torch']}, "
            f"Python {machine['python']}. Milliseconds: median of {result['rounds']} rounds "
            "(fastest to slowest); the lower bound is that of FLOPs.\n\n")
    text += _markdown(head, [_row(record) for record in result["cases"]])
    measured = [record for record in result["cases"] if "memory" in record]
    if measured:
        text += "\nPeak memory of a step beyond model and data, MiB, each in a separate process:\n\n"
        cells = lambda found: [f"{found[n]:,.0f}" if n in found else "" for n in ROLES]
        share = lambda found: f"{found[MANUAL] / found[OFFICIAL]:.2f}" if OFFICIAL in found else ""
        rows = [[r["case"]["name"], *cells(r["memory"]), share(r["memory"])] for r in measured]
        text += _markdown(["", *ROLES, "manual / official"], rows)
    if result["exactness"]:
        names = list(next(iter(result["exactness"].values())))
        text += "\nLargest differences from the official code in float64, relative to the largest value:\n\n"
        cells = lambda found: [f"{found[n]:.0e}" if n in found else "" for n in names]
        rows = [[kind, *cells(found)] for kind, found in result["exactness"].items()]
        text += _markdown(["", *names], rows)
    return text


def _bars(ax, records: list[dict]) -> None:
    shown = [name for name in ROLES if name != PLAIN and any(name in r["seconds"] for r in records)]
    height = 0.8 / len(shown)
    for i, name in enumerate(shown):
        have = [(y, r["seconds"]) for y, r in enumerate(records) if name in r["seconds"]]
        ratio = [t[name]["median"] / t[PLAIN]["median"] for _, t in have]
        low = [t[name]["low"] / t[PLAIN]["median"] for _, t in have]
        high = [t[name]["high"] / t[PLAIN]["median"] for _, t in have]
        ax.barh([y + (i - (len(shown) - 1) / 2) * height for y, _ in have], ratio, height, label=name,
                color=colour(ROLES[name]),
                xerr=[[r - a for r, a in zip(ratio, low, strict=True)],
                      [b - r for r, b in zip(ratio, high, strict=True)]],
                error_kw={"ecolor": colour("text"), "elinewidth": 0.8})
    for y, record in enumerate(records):
        ax.plot([record["bound"]] * 2, [y - 0.45, y + 0.45], color=colour("truth"), lw=1.5,
                label="lower bound by FLOPs" if y == 0 else None)
    ax.set(yticks=range(len(records)), yticklabels=[r["case"]["name"] for r in records],
           xlabel="training step, in steps of the Transformer++ (median; lines: fastest to slowest)")
    ax.set_ylim(len(records) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=5, columnspacing=1.0, handlelength=1.2)


def _curves(axes, result: dict) -> None:
    grouped = defaultdict(list)
    for axis, value, record in result["cost"]:
        grouped[axis].append((value, record))
    for ax, (axis, found) in zip(axes.flat, grouped.items(), strict=True):
        x = [value for value, _ in found]
        for name in (EAGER, MANUAL):
            times = [r["seconds"] for _, r in found]
            ratio = [t[name]["median"] / t[PLAIN]["median"] for t in times]
            ax.plot(x, ratio, "o-", color=colour(ROLES[name]), label=name)
            ax.fill_between(x, [t[name]["low"] / t[PLAIN]["median"] for t in times],
                            [t[name]["high"] / t[PLAIN]["median"] for t in times],
                            color=colour(ROLES[name]), alpha=0.15, lw=0)
        ax.plot(x, [2 * r["case"]["steps"] + 1 for _, r in found], "--", color=colour("truth"), lw=1.2,
                label="2n + 1")
        ax.set(xlabel=AXES[axis], xscale="log", ylim=(0, None), ylabel="steps of the Transformer++")
        ax.set_xticks(x, [str(value) for value in x])
        ax.minorticks_off()
    axes.flat[0].legend()


def plots(result: dict, folder: Path) -> None:
    """Both plots, for light and dark pages."""
    plt = require("matplotlib.pyplot", "figures")
    for theme, ending in (("light", ""), ("dark", "-dark")):
        with style(theme):
            records = [record for record in result["cases"] if record["case"]["kind"] == "training"]
            if records:
                figure, ax = plt.subplots(figsize=(7.2, 1.2 + 0.7 * len(records)))
                _bars(ax, records)
                figure.savefig(folder / f"training{ending}.png", metadata={"Software": None})
                plt.close(figure)
            if result["cost"]:
                figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.4))
                _curves(axes, result)
                figure.savefig(folder / f"cost{ending}.png", metadata={"Software": None})
                plt.close(figure)
