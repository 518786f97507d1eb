"""The tokens explorer as a page: its tokenizer and models equal the Python; settings, keys and width in a browser."""

import json
import sys
from pathlib import Path

import lab
import pytest
from explorer_page import PHONE, fits_a_phone, pages, paste, recorded, settings_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import explore_assets  # noqa: E402
import explore_tokens as assets  # noqa: E402

from ebwm.writing import INCLUDED, load_language  # noqa: E402

pytestmark = pytest.mark.slow
TEXTS = [
    "", " ", "   ", "a", " a", "a  b", "a \n\n b\t", "\r\n", "Return a new list.", "don't we'll I'M they'd",
    "x=1234567890", "def f(x, *, y=None) -> int:\n    return x**2\n", "naïve café", "Größe", "straße ÄÖÜ",
    "日本語のテキスト", "中文 文字 12 三", "한국어", "русский язык", "ελληνικά", "עברית", "العربية ١٢٣",
    "हिन्दी", "ไทย", "🙂", "👩‍👩‍👧‍👦 family", "🇩🇪🇯🇵", "e\u0301 e\u0300", "\u00a0nbsp\u00a0",
    "\u2003em\u2003space", "\u3000 ideographic", "\u0085next\u0085line", "\ufeffbom", "\u200bzero\u200bwidth",
    "\u2028line\u2029paragraph", "\x00\x01\x1f\x7f", "½ ² Ⅷ ①", "𝒳 𝔸 𝟘", "a\u0300\u0301\u0302b",
    "<|endoftext|>", "x<|endoftext|>y", "'s 't 're 've 'm 'll 'd 'S", "....!!!???", "____init____",
    "http://x.y/z?q=1&r=2#s", "\t\t\tif x:\n\t\t\t\ty", "        deep", "trailing   ", "\n\n\n", "Ġ Ċ ÿ",
]
ENCODED = """async ([data, texts]) => {
    const {Tokenizer} = await import('/_static/explore/tokens_bpe.js');
    const tokenizer = new Tokenizer(data, 0);
    return texts.map((text) => [tokenizer.encode(text), tokenizer.decode(tokenizer.encode(text))]);
}"""
NORMALS = "async ([seed, count]) => [...(await import('/_static/explore/tokens_model.js')).normals(seed, count)]"
PREDICTED = """async ([stepSize, tokens, seeds]) => {
    const {Models} = await import('/_static/explore/tokens_model.js');
    const models = await Models.load(new URL('/_static/explore/tokens/', location.href), stepSize);
    const found = [];
    for (const seed of seeds) found.push(await models.predict(tokens, seed));
    return found;
}"""


@pytest.fixture(scope="module")
def data():
    return recorded("tokens", assets.recorded)


@pytest.fixture(scope="module")
def files(page_files):
    return page_files("tokens", assets.MODELS, assets.load)


@pytest.fixture
def site(browser, data):
    """A function that opens the page; with a size of the models, it computes walks."""
    with pages(browser, "tokens", sheets=("explore.css", "tokens.css")) as opened:
        yield lambda path="", size=1, **options: opened(
            path, script=f"window.ebwmTokens = {json.dumps(data | {'bytes': size})}", **options)


def shares(page, model="EBT"):
    return page.get_by_label(model, exact=True).locator(".tk-row").evaluate_all(
        "rows => rows.map((row) => row.getAttribute('aria-label'))")


def note(page):
    return page.locator(".tk-note").inner_text()


# The JavaScript equals the Python


def test_texts_have_the_tokens_of_the_python_tokenizer(site, data):
    tokenizer = load_language(INCLUDED / "text").tokenizer
    found = site().evaluate(ENCODED, [data["tokenizer"], TEXTS])
    expected = [tokenizer.encode(text) for text in TEXTS]
    assert len(TEXTS) >= 50 and [tokens for tokens, _ in found] == expected
    assert [text for _, text in found] == [tokenizer.decode(tokens) for tokens in expected]


def test_starts_are_those_of_the_record(site):
    page = site()
    for seed in (0, 1, 9999):
        expected = explore_assets.normals(seed, 4096).tolist()
        assert page.evaluate(NORMALS, [seed, 4096]) == pytest.approx(expected, abs=1e-6)


def test_the_browser_computes_the_distributions_of_pytorch(site, data, files):
    ebt, transformer = (load_language(INCLUDED / name) for name in assets.MODELS)
    text, following, seeds = "If the file cannot be opened, an OSError is raised", ".", [0, 5]
    computed = site(served=files).evaluate(PREDICTED, [data["stepSize"], ebt.prompt(text), seeds])
    for seed, found in zip(seeds, computed, strict=True):
        expected = assets.state(ebt, transformer, text, following, seed)
        for one, other in zip(found["energies"], expected["energies"], strict=True):
            assert one == pytest.approx(other, abs=1e-4)
        walks = zip(found["likely"], expected["likely"], strict=True)
        pairs = [pair for one, other in walks for pair in zip(one, other, strict=True)]
        for one, other in [*pairs, (found["transformer"]["likely"], expected["transformer"]["likely"])]:
            assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=1e-4)
            assert dict(map(tuple, one))[other[0][0]] == pytest.approx(other[0][1], abs=1e-4)


# In a browser


def test_own_texts_seeds_and_tokens_are_computed_in_the_page(site, files):
    page = site(served=files)
    before = shares(page)
    assert "Recorded" in note(page)
    page.get_by_label("context").fill("Return True if the")
    lab.wait_until(lambda: "Computed in this browser" in note(page), page)
    assert shares(page) != before and settings_of(page)["text"] == "Return True if the"
    token = page.get_by_label("Transformer", exact=True).locator(".tk-row").first
    appended = token.get_attribute("aria-label").partition(",")[0].replace("␣", " ")
    token.click()
    lab.wait_until(lambda: settings_of(page)["text"] == f"Return True if the{appended}", page)
    page.get_by_label("seed of the starts").fill("-1")
    page.get_by_label("seed of the starts").press("Enter")
    assert "seed=-1: must be an integer from 0" in page.get_by_role("alert").inner_text()


def test_the_record_answers_steps_walks_play_and_keys(site, data):
    page = site(size=0)
    page.locator(".tk-note").click()
    for key, step in (("ArrowRight", 3), ("ArrowLeft", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert settings_of(page)["steps"] == step
        assert f"step {step}: " in page.get_by_label("EBT", exact=True).inner_text()
    likely = data["examples"][1]["likely"][0][1][0][1]
    page.get_by_label("walks").fill("1")
    assert f"{100 * likely:.0f} %" in shares(page)[0]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Play or pause the steps").click()
    lab.wait_until(lambda: settings_of(page)["steps"] >= 2, page)
    assert page.get_by_label("context").get_attribute("readonly") is not None


def test_models_that_cannot_load_leave_the_record_and_one_line(site):
    page = site()
    before = shares(page)
    page.get_by_label("seed of the starts").fill("3")
    page.get_by_label("seed of the starts").press("Enter")
    lab.wait_until(lambda: "The models cannot run here" in page.get_by_role("alert").inner_text(), page)
    assert shares(page) == before


def test_settings_are_restored_from_a_paste_and_from_the_address(site):
    page = site(size=0)
    wanted = dict(example=4, text="", steps=5, walks=2, seed=0)
    paste(page, wanted)
    assert settings_of(page) == wanted
    lab.wait_until(lambda: "%22walks%22%3A2" in page.url, page)
    assert settings_of(site(page.url.removeprefix(lab.SITE), size=0)) == wanted
    for text, message in (("{", "settings: must be JSON"), ('{"step": 1}', "step: unknown setting; must be one of"),
                          ('{"walks": 99}', "walks=99: must be an integer from 1 to 8")):
        paste(page, text)
        assert message in page.get_by_role("alert").inner_text()


def test_a_phone_shows_everything(site):
    assert fits_a_phone(site(size=0, width=PHONE))


def test_an_archive_with_another_digest_is_refused(tmp_path, monkeypatch):
    def packed(command, **settings):
        (Path(command[-1]) / "a.tgz").write_bytes(b"other")
        return explore_assets.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(explore_assets.subprocess, "run", packed)
    monkeypatch.setattr(explore_assets.shutil, "which", lambda name: name)
    with pytest.raises(ValueError, match=r"onnxruntime-web@1\.30\.0 has sha512-.*: must be sha512-"):
        explore_assets.package_files(explore_assets.RUNTIME, tmp_path)
    monkeypatch.setattr(explore_assets.shutil, "which", lambda name: None)
    with pytest.raises(explore_assets.AssetError, match="'npm' is not on the PATH: apt-get install npm"):
        explore_assets.package_files(explore_assets.RUNTIME, tmp_path)
