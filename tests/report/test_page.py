"""The page in a browser: what it draws, that it can be read, and that it stays by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cohort.tiny import image_set, publish
from playwright.sync_api import Browser, Page

import cohortlake
from cohortlake import Lake, report

HOSTILE = (
    "<script>document.title = 'run'</script>",
    '"><img src=x onerror="document.title = 1">',
    "</style></svg><iframe src='/etc'>",
    r"$\frac{1$ &lt; {{ 7 * 7 }}",
    "骨盤",
)

CHARTS = """() => [...document.querySelectorAll('svg')].map(svg => ({
    id: svg.getAttribute('aria-labelledby'),
    titled: !!document.getElementById(svg.getAttribute('aria-labelledby')),
    drawn: [...svg.querySelectorAll('path')].filter(path => {
        const box = path.getBoundingClientRect();
        return path.style.fill.startsWith('var(--series') && box.width > 0 && box.height > 0;
    }).length,
    cut: [...svg.querySelectorAll('text')].filter(text => {
        const own = text.getBoundingClientRect(), all = svg.getBoundingClientRect();
        return own.left < all.left - 2 || own.right > all.right + 2;
    }).map(text => text.textContent),
}))"""

# What can be read of each text: its size on the screen, and how it stands out from the ground.
TEXTS = """() => {
    const rgb = color => color.match(/[\\d.]+/g).map(Number);
    const light = color => {
        const [r, g, b] = rgb(color).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (rgb(color)[3] !== 0) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const texts = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const box = element.getBoundingClientRect();
        if (!walker.currentNode.textContent.trim() || !box.width) continue;
        const style = getComputedStyle(element), svg = element.closest('svg');
        const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
        const pair = [light(svg ? style.fill : style.color), light(ground(element))];
        texts.push({
            text: walker.currentNode.textContent.trim(),
            pixels: parseFloat(style.fontSize) * scale,
            contrast: (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05),
        });
    }
    return texts;
}"""


@dataclass
class Opened:
    """A page, and what the browser told of it."""

    page: Page
    told: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    contexts = []

    def open_page(path: Path, width: int = 1200, scheme: Any = "light") -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.told.append(message.text))
        opened.page.on("pageerror", lambda error: opened.told.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.told.append(dialog.message))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def whole(hospital_root: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    with cohortlake.open(hospital_root) as lake:
        cohort = lake.cohort("scans", about="First CT or MR.").where(Modality=["CT", "MR"])
        cohort = cohort.where("age_at_study_years between 20 and 90")
        cohort = cohort.first_study_per_patient().split(train=0.7, test=0.3)
        report.write(lake, path, cohort)
    return path


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(whole: Path, opened: Open, width: int, scheme: str) -> None:
    seen = opened(whole, width, scheme)
    assert seen.told == []
    assert seen.requests == [whole.as_uri()]
    assert seen.page.title() == "Report on hospital: scans"
    assert seen.page.inner_text("h1") == "hospital"
    headings = seen.page.locator("h2").all_inner_texts()
    assert headings == [
        *("Completeness", "Holdings", "Quality", "Trends", "Changes", "Cohort scans")
    ]

    charts = {chart["id"]: chart for chart in seen.page.evaluate(CHARTS)}
    assert {"modalities", "body-parts", "kinds", "ages", "cohort-parts"} <= charts.keys()
    for chart in charts.values():
        assert chart["titled"], chart
        assert chart["drawn"] > 0, chart
        assert chart["cut"] == [], chart

    seen.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    texts = seen.page.evaluate(TEXTS)
    assert len(texts) > 200
    assert [text for text in texts if text["pixels"] < 11] == []
    assert [text for text in texts if text["contrast"] < 4.5] == []
    assert seen.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_the_screen_is_drawn_on(whole: Path, opened: Open, tmp_path: Path) -> None:
    shots = {
        scheme: opened(whole, 1200, scheme).page.screenshot(path=tmp_path / f"{scheme}.png")
        for scheme in ("light", "dark")
    }
    assert shots["light"] != shots["dark"]
    from matplotlib import image

    light, dark = (image.imread(tmp_path / f"{scheme}.png")[..., :3] for scheme in shots)
    assert light.mean() > 0.8
    assert dark.mean() < 0.3
    assert light.std() > 0.05
    assert dark.std() > 0.05


def test_what_a_tag_says_stays_text(root: str, tmp_path: Path, opened: Open) -> None:
    rows = [
        image_set(n, f"p{n}", f"1.{n}", Modality="CT", BodyPartExamined=HOSTILE[n % len(HOSTILE)],
                  PatientSex="F", StudyDate=date(2020, 1, 1), age_at_study_years=40)
        for n in range(20 * len(HOSTILE))
    ]  # fmt: skip
    publish(root, rows)
    path = tmp_path / "report.html"
    arms = {"patient_key": [f"p{n}" for n in range(len(rows))],
            "arm": [HOSTILE[n % len(HOSTILE)] for n in range(len(rows))]}  # fmt: skip
    with cohortlake.open(root) as lake:
        lake.attach("registry", pd.DataFrame(arms))
        cohort = lake.cohort("hostile", about=HOSTILE[0]).join("registry")
        cohort = cohort.exclude(f"BodyPartExamined = '{HOSTILE[1]} too'")
        report.write(lake, path, cohort)
        known = lake.sql("SELECT DISTINCT BodyPartExamined FROM series").fetchall()
    seen = opened(path)
    assert seen.told == []
    assert seen.requests == [path.as_uri()]
    assert seen.page.title() == "Report on lake: hostile"
    assert seen.page.locator("script, img, iframe, object, embed, link, form").count() == 0
    seen.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cells = seen.page.locator("tbody th").all_inner_texts()
    assert {*HOSTILE, *(value for (value,) in known if value)} <= set(cells)
    assert f"{HOSTILE[1]} too" in seen.page.inner_text(".flow")
    assert HOSTILE[0] in seen.page.inner_text("#cohort")
    assert seen.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_the_pages_own_policy_lets_nothing_in_or_out(whole: Path, opened: Open) -> None:
    seen, failed = opened(whole), {}
    seen.page.on("requestfailed", lambda request: failed.update({request.url: request.failure}))
    blocked = seen.page.evaluate("""() => new Promise(resolve => {
        const blocked = [];
        document.addEventListener('securitypolicyviolation', event => {
            blocked.push(event.effectiveDirective);
            if (blocked.length === 2) resolve(blocked.sort());
        });
        const picture = document.createElement('img');
        picture.src = 'http://127.0.0.1:9/picture.png';
        const script = document.createElement('script');
        script.textContent = 'document.title = 1';
        document.body.append(picture, script);
    })""")
    assert blocked == ["img-src", "script-src-elem"]
    assert failed == {"http://127.0.0.1:9/picture.png": "csp"}
    assert seen.page.title() == "Report on hospital: scans"


def test_a_lake_of_few_has_a_page_too(root: str, tmp_path: Path, opened: Open) -> None:
    publish(root, [image_set(n, "p", f"1.{n}", Modality="CT") for n in range(30)])
    path = tmp_path / "report.html"
    with cohortlake.open(root) as lake:
        report.write(lake, path)
    seen = opened(path, 360)
    assert seen.told == []
    assert "fewer than 11 patients, so this report shows no counts" in seen.page.inner_text("main")
    assert "30" not in seen.page.inner_text("main")


def test_a_narrow_page_holds_long_names(hospital: Lake, tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "report.html"
    cohort = hospital.cohort("a" * 60).where("Modality = 'CT' or BodyPartExamined = 'CHEST'")
    report.write(hospital, path, cohort, suppress_below=0)
    seen = opened(path, 320)
    assert seen.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
