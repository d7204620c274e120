"""The report in a real browser: opened from disk, on a phone and at a desk. Skipped without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.report_folders import harm, make_axes_study, make_run, make_stages, make_study

from onestage.report.page import write_report

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
DRAWN = "() => document.querySelectorAll('figure .canvas .main-svg').length"
UNDRAWN = "() => document.querySelectorAll('figure:not(:has(.main-svg))').length"
OPEN = "() => document.querySelectorAll('details').forEach(d => d.open = true)"
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies with and without axes and harm, runs with and without stages: every figure there is."""
    folder = tmp_path_factory.mktemp("report")
    folders = [
        harm(make_study(folder / "study")),
        make_axes_study(folder / "one", "learning_rate"),
        make_axes_study(folder / "two", "learning_rate", "beta"),
        make_run(folder / "a"),
        make_stages(folder / "b", drift=2.0),
    ]
    return write_report(folders, folder / "report.html").file


def opened(browser: Any, file: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page, and whatever it complains of."""
    tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said: list[str] = []
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    tab.on(
        "request", lambda one: said.append(f"request: {one.url}") if one.url[:4] == "http" else None
    )
    tab.goto(file.as_uri())
    return tab, said


def draw_all(tab: Any) -> None:
    """Open every fold and scroll through the page, as a reader would."""
    tab.evaluate(OPEN)
    place, end = 0, 1
    while place < end:
        tab.mouse.wheel(0, 1200)
        tab.wait_for_timeout(40)
        place += 1200
        end = tab.evaluate("() => document.documentElement.scrollHeight")
    tab.wait_for_function(f"() => ({UNDRAWN})() === 0", timeout=10_000)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_page_opens_and_draws(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    tab, said = opened(browser, page_file, width, scheme)
    assert tab.evaluate(OVERFLOW) <= 0
    draw_all(tab)
    figures = tab.locator("figure").count()
    assert figures >= 40
    assert tab.evaluate(UNDRAWN) == 0
    assert tab.evaluate(DRAWN) >= figures
    assert tab.evaluate(OVERFLOW) <= 0
    assert said == []
    tab.close()


def draw(figure: Any) -> None:
    """Figures are drawn when they come into view."""
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()


def test_choosing_changes_figures(browser: Any, page_file: Path) -> None:
    tab, said = opened(browser, page_file, 1280)
    front = tab.locator("#c1-the-front figure")
    draw(front)
    title = front.locator(".ytitle")
    assert title.text_content() == "knowledge (higher is better)"
    front.locator("select[data-name=y]").select_option("text_loss")
    assert title.text_content() == "text_loss (lower is better)"
    training = tab.locator("#c1-training")
    figure = training.locator("figure").first
    draw(figure)
    assert figure.locator(".scatterlayer .trace").count() == 3  # one seed of each trained method
    training.locator("select[data-views]").select_option("all drawn runs")
    assert figure.locator(".scatterlayer .trace").count() == 9
    training.locator("select[data-views]").select_option("UFT: all its runs")
    assert figure.locator(".scatterlayer .trace").count() == 3
    assert said == []
    tab.close()


def test_heatmaps_are_picked_together(browser: Any, page_file: Path) -> None:
    tab, said = opened(browser, page_file, 1280)
    maps = tab.locator("#c3-over-the-axes figure")
    assert maps.count() == 2
    maps.first.scroll_into_view_if_needed()
    maps.nth(1).locator(".heatmap-label").first.wait_for()
    assert (
        "★ 0.835" in maps.nth(1).locator(".heatmap-label").all_text_contents()
    )  # 0.8 - 0.015 + 0.05
    maps.first.locator("select").select_option("truth")
    assert maps.nth(1).locator("select").input_value() == "truth"
    assert "★ 0.735" in maps.nth(1).locator(".heatmap-label").all_text_contents()
    assert said == []
    tab.close()


def test_colours_follow_the_scheme(browser: Any, page_file: Path) -> None:
    tab, said = opened(browser, page_file, 1280)
    figure = tab.locator("#c1-the-front figure")
    draw(figure)
    ink = "() => getComputedStyle(document.querySelector('#c1-the-front .xtitle')).fill"
    before = tab.evaluate(ink)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(f"() => ({ink})() !== '{before}'", timeout=5_000)
    assert tab.evaluate(ink) == "rgb(230, 234, 238)"
    assert said == []
    tab.close()


def test_text_from_folders_never_runs(browser: Any, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", seeds=(0, 1))
    evil = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    for file in [*study.rglob("*.json"), *study.rglob("*.jsonl"), *study.rglob("*.yaml")]:
        text = file.read_text().replace("UFT", f"UFT{evil}").replace("formats", f"formats{evil}")
        file.write_text(
            text.replace("capital", evil).replace("scores/", f"{evil.replace('/', '')}/")
        )
    tab, said = opened(browser, write_report([study], tmp_path / "r.html").file, 390)
    draw_all(tab)
    assert "<script>window.ran" in tab.locator("#results").inner_text()
    assert tab.evaluate("() => window.ran") is None
    assert said == []
    tab.close()


def test_on_a_phone_methods_and_prompts_stay_in_sight(browser: Any, page_file: Path) -> None:
    tab, said = opened(browser, page_file, 390)
    for box, pinned in (
        (tab.locator("#c1-results .wide").first, "tbody th"),
        (tab.locator("#c1-samples .sample").first, ".prompt"),
    ):
        box.scroll_into_view_if_needed()
        name = box.locator(pinned).first
        strip = box.locator(".answers") if pinned == ".prompt" else box
        before = name.bounding_box()["x"]
        strip.evaluate("strip => { strip.scrollLeft = 120 }")
        assert strip.evaluate("strip => strip.scrollLeft") == 120
        assert name.bounding_box()["x"] == pytest.approx(before, abs=1)
    assert said == []
    tab.close()


def test_three_seeds_are_told_and_not_in_red(browser: Any, page_file: Path) -> None:
    tab, _ = opened(browser, page_file, 1280)
    ink = "one => getComputedStyle(one).color"
    few = tab.locator("#c1-results td.forgotten.few").first
    assert few.evaluate(ink) == few.locator("xpath=../../..//thead//th").first.evaluate(ink)
    assert few.evaluate("one => getComputedStyle(one).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert "\u25bc" in few.evaluate("one => getComputedStyle(one, '::before').content")
    tab.close()


def test_a_point_says_what_it_is(browser: Any, page_file: Path) -> None:
    tab, said = opened(browser, page_file, 1280)
    front = tab.locator("#c1-the-front figure")
    draw(front)
    tip = front.locator(".tip")
    assert tip.is_hidden()
    place = front.locator(".scatterlayer .trace path").last.bounding_box()
    tab.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    assert tip.is_visible()
    assert "MAXRIGHT" in tip.text_content()
    assert "train.learning_rate = 0.0005" in tip.text_content()
    assert said == []
    tab.close()
