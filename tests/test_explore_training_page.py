"""The page of the training explorer: recorded runs, replay, settings as text, width."""

import json
from urllib.parse import quote

import lab
import numpy as np
import pytest
from test_explore_pages import ADDRESS, opened, paused

from ebwm.explore.runs import smoothed

SMOOTHED = "async ([values, weight]) => (await import('/explore/training.js')).smoothed(values, weight)"
RUNS = "async () => (await import('/explore/training_data.js')).RUNS"


@pytest.fixture
def page(browser):
    with paused(browser, "training") as shown:
        yield shown


def settings(page):
    return json.loads(page.locator("textarea").input_value())


@pytest.mark.slow
def test_smoothing_equals_that_in_python_and_the_record_has_the_lesson(page):
    values = np.random.default_rng(0).normal(size=50)
    values[7] = np.nan
    given = [None if np.isnan(value) else value for value in values]
    made = [np.nan if value is None else value for value in page.evaluate(SMOOTHED, [given, 0.8])]
    assert np.allclose(made, smoothed(values, 0.8), equal_nan=True)
    runs = {run["name"]: run for run in page.evaluate(RUNS)}
    assert "raise it" in runs["step size 0.03"]["faults"][-1][1] and runs["step size auto"]["faults"] == []
    assert "lower it" in runs["step size 300"]["faults"][-1][1]
    assert runs["step size 0.03"]["test"] > runs["step size 0.3"]["test"] > runs["step size auto"]["test"]


@pytest.mark.slow
def test_runs_are_replayed_and_settings_are_restored_from_a_paste(browser, page):
    moving, _ = opened(browser, "training")
    lab.wait_until(lambda: settings(moving)["update"] > 3, moving)
    moving.context.close()
    assert settings(page)["update"] == 200
    page.get_by_role("button", name="Beside a Transformer").click()
    page.get_by_label("step size 30", exact=False).first.check()
    page.get_by_label("update", exact=True).fill("120")
    assert settings(page)["runs"] == ["step size auto", "step size 30", "Transformer"]
    assert "Transformer" in page.locator("svg").first.get_attribute("aria-label")
    assert "Transformer" not in page.locator("svg").nth(1).get_attribute("aria-label")
    page.locator("summary").click()
    wanted = settings(page) | {"update": 10, "smoothing": 0.9, "log": True, "runs": ["step size 0.03"]}
    for text, line in ((json.dumps(wanted), "step size 0.03, update 10: walks end"), ("{", "settings: must be JSON"),
                       (json.dumps(wanted | {"update": 900}), "update=900: must be an integer from 0 to 200"),
                       (json.dumps(wanted | {"runs": ["x"]}), 'runs=["x"]: must be a list of names of runs')):
        page.locator("textarea").fill(text)
        page.get_by_role("button", name="Apply the pasted settings").click()
        assert page.get_by_role("status").inner_text().startswith(line)
        assert page.get_by_label("update", exact=True).input_value() == "10"


@pytest.mark.slow
def test_what_is_shown_is_in_the_address_and_can_be_copied(browser, page):
    page.get_by_role("button", name="A step too large").click()
    page.get_by_label("Quantity 2").select_option("learning rate")
    page.get_by_label("smoothing", exact=True).fill("0.8")
    page.get_by_label("update", exact=True).fill("120")
    wanted = settings(page)
    assert wanted == {"runs": ["step size auto", "step size 300"], "log": True, "update": 120, "smoothing": 0.8,
                      "quantities": ["loss", "learning rate", "inner gradient norm", "step size"]}
    lab.wait_until(lambda: page.url.endswith("#training=" + quote(json.dumps(wanted, separators=(",", ":")), "")), page)
    page.locator("summary").click()
    page.get_by_role("button", name="Copy the settings").click()
    lab.wait_until(lambda: page.get_by_role("button", name="Copy the settings").inner_text() == "Copied", page)
    page.get_by_label("update", exact=True).fill("30")
    page.locator("textarea").fill("")
    page.locator("textarea").press("Control+v")
    page.get_by_role("button", name="Apply the pasted settings").click()
    assert settings(page) == wanted
    path = page.url.removeprefix(ADDRESS)
    other, problems = opened(browser, "training", path)  # does not play, though motion is allowed
    assert settings(other) == wanted and problems == []
    assert other.get_by_role("button", name="Play or pause").inner_text() == "Play"
    assert other.get_by_role("button", name="A step too large").get_attribute("aria-pressed") == "true"
    other.evaluate("hash => { location.hash = hash; }", path.replace("120", "40"))
    lab.wait_until(lambda: settings(other)["update"] == 40, other)
    other.evaluate("hash => { location.hash = hash; }", "#training=%7B")
    lab.wait_until(lambda: other.get_by_role("status").inner_text().startswith("settings: must be JSON"), other)
    assert settings(other)["update"] == 40
    other.context.close()


@pytest.mark.slow
def test_nothing_is_wider_than_a_phone_and_the_theme_changes_the_colours(browser):
    with paused(browser, "training", width=360) as page:
        for preset in page.locator(".ex-presets button").all():
            preset.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
        light = page.locator("svg").first.inner_html()
        page.evaluate("document.body.dataset.theme = 'dark'")
        lab.wait_until(lambda: page.locator("svg").first.inner_html() != light, page)
