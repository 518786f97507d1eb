"""The page of the training explorer: recorded runs, replay, settings as text, width."""

import json
from urllib.parse import quote

import lab
import numpy as np
import pytest
from explorer_page import PHONE, fits_a_phone, pages, paste, settings_of

from ebwm.explore.runs import smoothed

pytestmark = pytest.mark.slow
SMOOTHED = "async ([values, weight]) => (await import('/_static/explore/training.js')).smoothed(values, weight)"
RUNS = "async () => (await import('/_static/explore/training_data.js')).RUNS"


@pytest.fixture
def site(browser):
    with pages(browser, "training") as opened:
        yield opened


@pytest.fixture
def page(site):
    return site()


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


def test_runs_are_replayed_and_settings_are_restored_from_a_paste(site, page):
    moving = site(reduced_motion="no-preference")
    lab.wait_until(lambda: settings_of(moving)["update"] > 3, moving)
    assert settings_of(page)["update"] == 200
    page.get_by_role("button", name="Beside a Transformer").click()
    page.get_by_label("step size 30", exact=False).first.check()
    page.get_by_label("update", exact=True).fill("120")
    assert settings_of(page)["runs"] == ["step size auto", "step size 30", "Transformer"]
    assert "Transformer" in page.locator("svg").first.get_attribute("aria-label")
    assert "Transformer" not in page.locator("svg").nth(1).get_attribute("aria-label")
    wanted = settings_of(page) | {"update": 10, "smoothing": 0.9, "log": True, "runs": ["step size 0.03"]}
    for text, line in ((wanted, "step size 0.03, update 10: walks end"), ("{", "settings: must be JSON"),
                       (wanted | {"update": 900}, "update=900: must be an integer from 0 to 200"),
                       (wanted | {"runs": ["x"]}, 'runs=["x"]: must be a list of names of runs')):
        paste(page, text)
        assert page.get_by_role("status").inner_text().startswith(line)
        assert page.get_by_label("update", exact=True).input_value() == "10"


def test_what_is_shown_is_in_the_address_and_can_be_copied(site, page):
    page.get_by_role("button", name="A step too large").click()
    page.get_by_label("Quantity 2").select_option("learning rate")
    page.get_by_label("smoothing", exact=True).fill("0.8")
    page.get_by_label("update", exact=True).fill("120")
    wanted = settings_of(page)
    assert wanted == {"runs": ["step size auto", "step size 300"], "log": True, "update": 120, "smoothing": 0.8,
                      "quantities": ["loss", "learning rate", "inner gradient norm", "step size"]}
    address = "#training=" + quote(json.dumps(wanted, separators=(",", ":")), "")
    lab.wait_until(lambda: page.url.endswith(address), page)
    page.locator("summary").click()
    page.get_by_role("button", name="Copy the settings").click()
    lab.wait_until(lambda: page.get_by_role("button", name="Copy the settings").inner_text() == "Copied", page)
    page.get_by_label("update", exact=True).fill("30")
    page.locator("textarea").fill("")
    page.locator("textarea").press("Control+v")
    page.get_by_role("button", name="Apply the pasted settings").click()
    assert settings_of(page) == wanted
    other = site(address, reduced_motion="no-preference")  # does not play
    assert settings_of(other) == wanted
    assert other.get_by_role("button", name="Play or pause").inner_text() == "Play"
    assert other.get_by_role("button", name="A step too large").get_attribute("aria-pressed") == "true"
    other.evaluate("hash => { location.hash = hash; }", address.replace("120", "40"))
    lab.wait_until(lambda: settings_of(other)["update"] == 40, other)
    other.evaluate("hash => { location.hash = hash; }", "#training=%7B")
    lab.wait_until(lambda: other.get_by_role("status").inner_text().startswith("settings: must be JSON"), other)
    assert settings_of(other)["update"] == 40


def test_nothing_is_wider_than_a_phone(site):
    page = site(width=PHONE)
    for example in page.locator(".ex-presets button").all():
        example.click()
        assert fits_a_phone(page)
