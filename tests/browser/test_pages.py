"""The pages in a real browser (Debian's chromium), as a person uses them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from occluscope.client import Client
from service.running.stack import Stack
from tests.conftest import Keyed, encode, random_picture

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
JOB_MS = 240_000  # on a busy machine; the test ends at 300 s

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page that fails its test at the end if any script broke on the way."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1300, "height": 900})
        broken: list[str] = []
        opened.on("pageerror", lambda error: broken.append(str(error)))
        yield opened
        browser.close()
    assert broken == []


@pytest.fixture
def coffee(tmp_path: Path, photographs: dict[str, Image.Image]) -> Path:
    path = tmp_path / "coffee.png"
    photographs["coffee"].save(path)
    return path


def test_from_a_picture_to_its_heatmap(page: Page, stack: Stack, coffee: Path) -> None:
    page.goto(stack.url)
    expect(page.locator("#model")).to_have_value("efficientnet_lite0")
    page.set_input_files("#files", coffee)
    expect(page.locator("#thumbnails img")).to_have_count(1)
    page.click("summary")
    page.fill("[name=stride]", "24")
    page.click("button[type=submit]")
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#state")).to_have_text("succeeded", timeout=JOB_MS)
    expect(page.locator("#title")).to_have_text("Occlusion sensitivity · efficientnet_lite0")
    picture = page.locator("#pictures img")
    expect(picture).to_have_count(1)
    expect(picture).to_have_js_property("complete", value=True)
    assert picture.evaluate("image => image.naturalHeight") == 400
    expect(page.locator("#pictures dl")).to_contain_text("Base probability")
    expect(page.locator("#pictures dl")).to_contain_text("0.9566")
    expect(page.locator("#left")).to_contain_text("147 of 147 in")


def test_drawing_can_be_changed(page: Page) -> None:
    """On the page that the test before left open."""
    page.select_option("#which", "predicted_class_map")
    expect(page.locator("#pictures img")).to_have_attribute("alt", "Predicted class per window")
    page.uncheck("#overlay")
    expect(page.locator("#pictures img")).not_to_have_attribute("src", "overlay")
    page.select_option("#which", "top_classes")
    expect(page.locator("#overlay")).to_be_disabled()
    with page.expect_download() as download:
        page.click("text=CSV")
    assert "espresso" in Path(download.value.path()).read_text()


def test_a_mistake_is_told_with_its_field(page: Page, stack: Stack, coffee: Path) -> None:
    page.goto(stack.url)
    expect(page.locator("#model")).to_have_value("efficientnet_lite0")
    page.click("button[type=submit]")
    expect(page.locator("#error-of-files")).to_have_text("Choose at least one picture.")
    page.set_input_files("#files", coffee)
    page.fill("#model", "resnet5")
    page.click("button[type=submit]")
    expect(page.locator("#error-of-model")).to_contain_text("there is no model 'resnet5'")
    expect(page.locator("#error-of-files")).to_have_count(0)
    expect(page.locator("#error")).to_be_hidden()


def test_a_mistake_stands_beside_its_field_in_view(page: Page, stack: Stack, coffee: Path, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 700, "height": 500})
    page.goto(stack.url)
    expect(page.locator("#model")).to_have_value("efficientnet_lite0")
    page.set_input_files("#files", coffee)
    page.click("summary")
    page.fill("#model", "resnet5")
    page.fill("[name=window]", "[500, -3]")
    page.fill("[name=region]", "[1, 2]")
    page.click("summary")
    page.locator("#form button").dispatch_event("click")
    for name in ("window", "region"):
        field = page.locator(f"[name={name}]")
        expect(field).to_have_attribute("aria-invalid", "true")
        told = page.locator(f"#{field.get_attribute('aria-describedby')}")
        expect(told).to_be_visible()
        under, above = told.bounding_box(), field.bounding_box()
        assert under is not None
        assert above is not None
        assert 0 < under["y"] - above["y"] < 150
    expect(page.locator("#model")).to_be_focused()
    expect(page.locator("#error-of-model")).to_be_in_viewport()
    page.fill("#model", "efficientnet_lite0")
    page.locator("#form button").dispatch_event("click")
    expect(page.locator("[name=window]")).to_be_focused()
    expect(page.locator("#error-of-parameter-window")).to_be_in_viewport()
    page.fill("[name=window]", "48")
    page.fill("[name=region]", "")
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.set_input_files("#files", [coffee, tmp_path / "no.png"])
    page.click("button[type=submit]")
    expect(page.locator("#error-of-files")).to_contain_text("no.png: not a picture")
    expect(page.locator("#error-of-files")).to_be_in_viewport()
    expect(page.locator("[name=window]")).not_to_have_attribute("aria-invalid", "true")
    page.evaluate("document.querySelector('#form').scrollIntoView({ block: 'end' })")
    page.route("**/v1/images", lambda route: route.fulfill(status=502, body="no"))
    page.click("button[type=submit]")
    expect(page.locator("#error-of-files")).to_contain_text("coffee.png: The service answered 502.")
    page.unroute("**/v1/images")
    page.set_viewport_size({"width": 1300, "height": 900})


def test_the_overview_lists_the_job_and_deleting_takes_it_off(page: Page, stack: Stack) -> None:
    page.goto(stack.url)
    first = page.locator("#jobs tbody tr a").first
    href = first.get_attribute("href")
    first.click()
    expect(page.locator("#state")).not_to_have_text("")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#delete")
    page.wait_for_url(f"{stack.url}/")
    expect(page.locator(f'#jobs a[href="{href}"]')).to_have_count(0)


def test_a_job_that_waits_says_what_for(page: Page, stack: Stack, client: Client) -> None:
    image = client.upload(encode(random_picture(5))).id
    params = {"window": 16, "stride": 2, "method": "naive", "insertion_deletion": False}
    jobs = [client.submit("occlusion", "efficientnet_lite0", [image], params) for _ in range(2)]
    page.goto(f"{stack.url}/jobs/{jobs[1].id}")
    expect(page.locator("#waiting")).to_have_text("It waits for a worker: what came before it runs first.")
    client.cancel(jobs[0].id)
    expect(page.locator("#waiting")).to_have_text("Each picture's results appear here as soon as they are done.")
    page.click("#cancel")
    expect(page.locator("#state")).to_have_text("cancelled")
    expect(page.locator("#waiting")).to_contain_text("It was cancelled.")


def test_each_map_bears_its_own_numbers_however_alike_names_are(page: Page, stack: Stack, client: Client) -> None:
    """'fountain pen' begins with 'fountain', and 64×64 · … with 64×6."""
    params = {
        "window": [[112, 112], [112, 11]], "stride": 112, "target": ["fountain", "fountain pen"],
        "insertion_deletion": False,
    }  # fmt: skip
    image = client.upload(encode(random_picture(8))).id
    job = client.wait(client.submit("occlusion", "efficientnet_lite0", [image], params).id)
    numbers = {
        str(one.variant): one.value
        for one in client.results(job.id).metrics
        if one.name in ("base_probability", "windows")
    }
    page.goto(f"{stack.url}/jobs/{job.id}")
    expect(page.locator("#pictures .card")).to_have_count(4)
    for card in page.locator("#pictures .card").all():
        variant = " · ".join((card.locator("h1").text_content() or "").split(" · ")[1:])
        assert variant in numbers
        terms = card.locator("dt").all_text_contents()
        assert len(terms) == len(set(terms))
        shown = dict(zip(terms, card.locator("dd").all_text_contents(), strict=True))
        base = float(shown["Base probability"].split()[0])
        assert abs(base - numbers[variant]) < 1e-6 + 1e-3 * numbers[variant]
        assert float(shown["Windows"].split()[0]) == numbers[variant.split(" · ")[0]]


def test_many_pictures_are_shown_page_by_page(page: Page, stack: Stack, client: Client) -> None:
    images = [client.upload(encode(random_picture(200 + number))).id for number in range(26)]
    params = {"window": 224, "insertion_deletion": False}
    job = client.wait(client.submit("occlusion", "efficientnet_lite0", images, params).id)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{stack.url}/jobs/{job.id}")
    expect(page.locator("#pictures .card")).to_have_count(24)
    expect(page.locator("#place")).to_have_text("Pictures 1 to 24 of 26")
    expect(page.locator("#previous")).to_be_disabled()
    page.click("#next")
    expect(page.locator("#pictures .card")).to_have_count(2)
    expect(page.locator("#pictures h1").first).to_contain_text("Picture 25")
    expect(page.locator("#next")).to_be_disabled()
    page.select_option("#which", "predicted_class_map")
    expect(page.locator("#pictures .card")).to_have_count(24)
    page.click("#next")
    page.click("#previous")
    expect(page.locator("#place")).to_have_text("Pictures 1 to 24 of 26")
    assert len([url for url in asked if "/results" in url]) == 5


def test_a_job_that_is_not_there_is_said(page: Page, stack: Stack) -> None:
    page.goto(f"{stack.url}/jobs/{'0' * 32}")
    expect(page.locator("#error")).to_contain_text("There is no such job")


def test_with_a_key_one_signs_in_and_out(page: Page, keyed: Keyed, coffee: Path) -> None:
    url = keyed.stack.url
    page.goto(url)
    expect(page.locator("#sign-in")).to_be_visible()
    page.keyboard.press("Escape")
    page.fill("#key", "occ_wrong")
    page.click("#sign-in button")
    expect(page.locator("#refused")).to_contain_text("not a key of this service")
    page.fill("#key", keyed.keys["ada"])
    page.click("#sign-in button")
    expect(page.locator("#owner")).to_have_text("ada")
    expect(page.locator("#sign-in")).to_be_hidden()
    page.set_input_files("#files", coffee)
    page.click("summary")
    page.fill("[name=window]", "112")
    page.fill("[name=stride]", "56")
    page.click("button[type=submit]")
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#state")).to_have_text("succeeded", timeout=JOB_MS)
    picture = page.locator("#pictures img")
    expect(picture).to_have_js_property("complete", value=True)
    assert picture.evaluate("image => image.naturalHeight") == 400  # pictures are asked for with the cookie
    page.click("#sign-out")
    expect(page.locator("#sign-in")).to_be_visible()
    expect(page.locator("#jobs tbody tr")).to_have_count(0)
