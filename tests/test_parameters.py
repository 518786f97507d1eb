"""What `help()` shows of a parameter."""

import inspect

import ebwm
from ebwm.parameters import describe

SOURCE = '''
def walk(
    steps: int,  # number of steps
    *rest: int,
    start: str = "#1",  # initial
    **settings,  # anything else
) -> list[int]:  # one for each step
    "Walk."
'''
WORDS = ["Parameters", "----------", "steps", "number of steps", "start", "initial", "settings", "anything else",
         "Returns", "-------", "list[int]", "one for each step"]


def test_comments_become_sections():
    assert [line.strip() for line in describe(SOURCE.strip()).splitlines() if line] == WORDS
    fields = describe("class Walk:\n    steps: int = 2  # steps of a walk\n")
    assert fields.endswith("steps\n    steps of a walk")
    assert describe("x = 1") == "" == describe("")


def test_help_of_the_public_names_explains_each_parameter():
    for name in ebwm.EXPORTS:
        value = getattr(ebwm, name)
        for parameter in inspect.signature(value).parameters:
            assert f"\n{parameter}\n    " in inspect.getdoc(value), f"{name}: {parameter}"
    assert "Parameters" in inspect.getdoc(ebwm.EBT.landscape)
