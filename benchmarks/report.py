"""Results of the benchmark as a table and two plots."""

from collections import defaultdict
from pathlib import Path

from benchmarks.cases import COMPILED, EAGER, FUSED, MANUAL, OFFICIAL, PLAIN
from ebwm.compat import require
from ebwm.figures.style import colour, style

ROLES = {PLAIN: "truth", OFFICIAL: "transformer", EAGER: "floor", MANUAL: "ebt", FUSED: "diffusion", COMPILED: "gru"}
AXES = {"steps": "sampling steps, n", "length": "states in the context, S (256 in the batch)",
        "dim": "width of the model, D", "batch": "contexts in the batch, B"}


WORDS = (
    "official: the authors' code; eager: this one with PyTorch's gradient of the energy; manual: with the handwritten "
    "one, the default on CPUs; compiled: by torch.compile; ratio of FLOPs: the EBT's to the Transformer++'s, of a "
    "training step; n: steps of a walk, 2 elsewhere; S: states in the context; V: tokens of the vocabulary.")


def _cell(times: dict, name: str) -> str:
    if name not in times:
        return ""
    t = times[name]
    digits = ",.0f" if t["low"] >= 0.01 else ".2f"
    return "{:{f}} ({:{f}} to {:{f}})".format(*(1e3 * t[key] for key in ("median", "low", "high")), f=digits)


def _shown(records: list[dict]) -> list[str]:
    """The contenders with a column: the fused one only where it was measured."""
    return [name for name in ROLES if name != FUSED or any(name in record["seconds"] for record in records)]


def _row(record: dict, shown: list[str]) -> list[str]:
    times = record["seconds"]
    ratio = lambda a, b: f"{times[a]['median'] / times[b]['median']:.2f}" if a in times and b in times else ""
    bound = f"{record['bound']:.2f}" if record["bound"] else ""
    return [record["case"]["name"], *(_cell(times, name) for name in shown),
            ratio(OFFICIAL, MANUAL), ratio(MANUAL, PLAIN), bound]


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table(result: dict) -> str:
    """Milliseconds, ratios, memory and differences, in Markdown."""
    machine = result["machine"]
    shown = _shown(result["cases"])
    head = ["", *shown, "official / manual", "manual / Transformer++", "ratio of FLOPs"]
    place = machine["gpu"] if _of_gpu(result) else f"{machine['processor']}, {machine['threads']} thread(s)"
    commits = "".join(f", {name} at {commit}" for name, commit in result.get("commits", {}).items())
    text = (f"{place}, torch {machine['torch']}{commits}, "
            f"Python {machine['python']}. Milliseconds: median of {result['rounds']} rounds "
            f"(fastest to slowest). {WORDS}\n\n")
    text += _markdown(head, [_row(record, shown) for record in result["cases"]])
    measured = [record for record in result["cases"] if "memory" in record]
    if measured:
        what = ("with models and data, MiB" if _of_gpu(result)
                else "beyond model and data, MiB, each in a separate process")
        text += f"\nPeak memory of a step {what}:\n\n"
        cells = lambda found: [f"{found[n]:,.0f}" if n in found else "" for n in shown]
        share = lambda found: f"{found[MANUAL] / found[OFFICIAL]:.2f}" if found.keys() >= {MANUAL, OFFICIAL} else ""
        rows = [[r["case"]["name"], *cells(r["memory"]), share(r["memory"])] for r in measured]
        text += _markdown(["", *shown, "manual / official"], rows)
    text += _gpu_tables(result["cases"], shown)
    if result["exactness"]:
        names = list(next(iter(result["exactness"].values())))
        text += "\nLargest differences from the official code in float64, relative to the largest value:\n\n"
        cells = lambda found: [f"{found[n]:.0e}" if n in found else "" for n in names]
        rows = [[kind, *cells(found)] for kind, found in result["exactness"].items()]
        text += _markdown(["", *names], rows)
    return text


def _of_gpu(result: dict) -> bool:
    return any(record["case"].get("device") == "cuda" for record in result["cases"])


def _gpu_tables(records: list[dict], shown: list[str]) -> str:
    """Utilisation, differences from eager gradients, and contenders that failed."""
    text, used = "", [record for record in records if record.get("utilisation")]
    if used:
        rows = [[r["case"]["name"], *(f"{r['utilisation'][n]:.1%}" if n in r["utilisation"] else "" for n in shown)]
                for r in used]
        text += ("\nUtilisation: FLOPs that a training step needs, with masked entries of attention, per second, as a "
                 "share of the GPU's peak:\n\n" + _markdown(["", *shown], rows))
    return text + _list(records, "differences", "Largest differences of gradients from eager ones in float32, as a "
                        "fraction of the largest gradient") + _list(records, "failed", "Not measured")


def _list(records: list[dict], name: str, title: str) -> str:
    """An entry of the records for each case and contender."""
    shown = lambda value: f"{value:.0e}" if isinstance(value, float) else value
    lines = [f"- {record['case']['name']}, {contender}: {shown(value)}\n"
             for record in records for contender, value in record.get(name, {}).items()]
    return f"\n{title}:\n\n{''.join(lines)}" if lines else ""


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
                label="ratio of FLOPs" if y == 0 else None)
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
