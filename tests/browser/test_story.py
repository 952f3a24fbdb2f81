"""The page in a browser, as a reader uses it: the node, its network and its pictures are real."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from cbmir_node.config import Settings
from cbmir_node.stores import open_stores
from tests.browser.conftest import needs_npm_file
from tests.browser.running import start_node
from tests.browser.story import (
    RESULT,
    canvas,
    dicom_file,
    drag_over,
    drop,
    images,
    picture_file,
    texts,
    wait_for_results,
    wait_until_changed,
    wait_until_drawn,
)
from tests.dicom.peers import EXPLICIT, association, encoded, store_bytes
from tests.dicom.receivers import Receiver, receiver
from tests.end_to_end.conftest import RECEIVED, RunningNode
from tests.objects import write
from tests.phantoms.objects import KINDS, collection, has_lesion, image_uids, study
from tests.small_node import archive_file

Open = Callable[..., Any]
Shown = Callable[..., None]
STRANGER = 19  # number of a phantom patient whom the node does not have; with a lesion
EMBEDDED = "count => document.querySelector('[data-testid=state-embedded]').innerText === count"
HOLD_UPLOAD = """name => {
    const node = window.fetch;
    window.fetch = (address, options) => !String(address).includes(name) ? node(address, options)
        : new Promise(answer => {
            window.answerHeldUpload = () => answer(Response.json({ token: 'answered-too-late' }));
        });
}"""
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def workstation() -> Iterator[Receiver]:
    with receiver([(CTImageStorage, [ExplicitVRLittleEndian])]) as listening:
        yield listening


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, chromium: Any, workstation: Receiver
) -> Iterator[RunningNode]:
    """Run a node with the shipped network and the phantoms."""
    peer = workstation.peer
    running = start_node(
        tmp_path_factory.mktemp("story"),
        collection(),
        "[http.viewers]\n"
        'OHIF = "https://viewer.example/viewer?StudyInstanceUIDs={StudyInstanceUID}"\n'
        f'[peers.{peer.ae_title}]\nhost = "{peer.host}"\nport = {peer.port}\n',
        shipped=True,
    )
    yield running
    running.kill()


@pytest.fixture
def origin(node: RunningNode) -> str:
    return f"http://127.0.0.1:{node.http_port}"


def start_from_file(page: Any) -> None:
    page.wait_for_selector("[data-testid=studies] a", state="attached")
    drop(page, "abdomen.dcm", dicom_file(study("CT abdomen", STRANGER)[0]))
    wait_for_results(page)


def test_accessibility_is_checked() -> None:
    needs_npm_file("axe-core/axe.min.js")


def test_a_dropped_file_finds_similar_cases_and_is_not_stored(
    open_page: Open, origin: str, node: RunningNode, shown: Shown
) -> None:
    page = open_page(origin)
    page.wait_for_selector("[data-testid=studies] a")
    page.wait_for_load_state("networkidle")
    shown(page, "start")
    held = node.metric(RECEIVED)
    content = dicom_file(study("CT abdomen", STRANGER)[0])
    page.dispatch_event("body", "drop", {"dataTransfer": drag_over(page, "abdomen.dcm", content)})
    wait_for_results(page)
    assert node.metric(RECEIVED) == held
    assert page.is_visible("[data-testid=not-stored]")
    assert (
        page.locator("[data-testid=query-classes] li").first.inner_text().startswith("CT abdomen")
    )
    assert texts(page, "kind")[:3] == ["CT abdomen"] * 3
    similarities = [float(text) for text in texts(page, "similarity")]
    assert similarities == sorted(similarities, reverse=True)
    assert texts(page, "class")[:3] == ["CT abdomen"] * 3
    shown(page, "results")


def test_the_newest_file_counts(open_page: Open, origin: str) -> None:
    page = open_page(origin)
    page.wait_for_selector("[data-testid=studies] a")
    page.evaluate(HOLD_UPLOAD, "slow.dcm")
    drop(page, "slow.dcm", dicom_file(study("CT head", STRANGER)[0]))
    page.wait_for_selector("text=Looking at slow.dcm")
    drop(page, "hand.png", picture_file(study("CR hand", STRANGER)[0]))
    page.wait_for_selector("[data-testid=file-modality]", state="visible")
    start_from_file(page)
    page.evaluate("answerHeldUpload()")
    page.locator(f"{RESULT} .picture").first.click()
    wait_until_drawn(page, 1)
    drop(page, "chest.dcm", dicom_file(study("CT chest", STRANGER)[0]))
    page.wait_for_selector("[data-testid=viewer]", state="hidden")
    wait_for_results(page)
    assert page.inner_text("#query-name").startswith("chest.dcm")
    assert page.locator("dialog[open]").count() == 0


def test_the_overlay_comes_and_goes(open_page: Open, origin: str, shown: Shown) -> None:
    page = open_page(origin)
    start_from_file(page)
    first = page.locator(f"{RESULT} .picture").first
    page.mouse.move(0, 0)
    plain = first.screenshot()
    page.click("[data-testid=saliency]")
    page.wait_for_function(
        """() => ['[data-testid=query-picture]', '[data-testid=result] .picture'].every(where => {
            const overlay = document.querySelector(`${where} .overlay`);
            return overlay?.complete && overlay.naturalWidth > 0;
        })"""
    )
    page.wait_for_function("() => !document.querySelector('.explaining')")
    page.mouse.move(0, 0)
    assert first.screenshot() != plain
    shown(page, "why")
    page.click("[data-testid=saliency]")
    page.mouse.move(0, 0)
    assert first.screenshot() == plain


def test_filters_hold_for_every_result(open_page: Open, origin: str, shown: Shown) -> None:
    page = open_page(origin)
    start_from_file(page)
    filters = page.locator("[data-testid=filters]")
    filters.locator("[name=modality]").select_option("CT")
    filters.locator("[name=sex]").select_option("F")
    page.wait_for_function(
        """() => {
            const results = [...document.querySelectorAll('[data-testid=result]')];
            const every = (name, pattern) => results.every(
                result => pattern.test(result.querySelector(`[data-testid=${name}]`).innerText));
            return results.length > 0 && results.length < 20
                && every('kind', /^CT\\b/) && every('facts', /^female/);
        }"""
    )
    shown(page, "filters")
    filters.locator("[name=age_from]").fill("120")
    filters.locator("[name=age_to]").fill("60")
    page.wait_for_selector("text=The second age is below the first")
    filters.locator("[name=age_to]").fill("")
    page.wait_for_selector("text=No case passes the filters")
    shown(page, "nothing-passes", picture=False)
    page.click("text=Clear the filters")
    wait_for_results(page)


def test_marked_results_refine_the_search(open_page: Open, origin: str, shown: Shown) -> None:
    page = open_page(origin)
    start_from_file(page)
    before = images(page)
    relevant, other = (
        next(one for one in before if one in uids) for uids in (lesions(True), lesions(False))
    )
    for one, mark in ((relevant, "plus"), (other, "minus")):
        page.locator(RESULT).nth(before.index(one)).get_by_test_id(f"mark-{mark}").click()
    shown(page, "marked")
    page.click("[data-testid=search-again]")
    page.wait_for_selector("[data-testid=rounds] img")
    wait_for_results(page)
    after = images(page)
    assert not {relevant, other} & set(after)
    left = [one for one in before if one not in {relevant, other}]
    assert [one for one in after if one in left] != [one for one in left if one in after]
    shown(page, "refined")
    page.click("[data-testid=undo]")
    page.wait_for_function("() => document.querySelector('[data-testid=rounds]').hidden")
    wait_for_results(page)
    assert images(page) == before


def lesions(wanted: bool) -> set[str]:
    """Return the SOP Instance UIDs of abdomens with, or without, a lesion in the liver."""
    abdomen = KINDS["CT abdomen"]
    numbers = [number for number in range(abdomen.studies) if has_lesion(number) == wanted]
    return {uid for number in numbers for uid in image_uids("CT abdomen", number)}


def test_the_larger_view(open_page: Open, origin: str, shown: Shown) -> None:
    page = open_page(origin)
    start_from_file(page)
    page.locator(f"{RESULT} .picture").first.click()
    for pane in (0, 1):
        wait_until_drawn(page, pane)
    shown(page, "view")
    stage = page.locator(".pane canvas.stage").nth(1)
    box = stage.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before, query = canvas(page, 1), canvas(page, 0)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 60, middle[1] + 40, steps=4)
    page.mouse.up()
    wait_until_changed(page, 1, before)
    assert canvas(page, 0) == query
    windowed, position = canvas(page, 1), page.locator(".frame-position").nth(1)
    was = position.inner_text()
    page.mouse.wheel(0, 120 if was.startswith("1") else -120)
    wait_until_changed(page, 1, windowed)
    assert position.inner_text() != was
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=Result 2 of 20")
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-testid=viewer]", state="hidden")
    assert (
        page.evaluate("document.activeElement.closest('[data-testid=result]').dataset.rank") == "2"
    )


def test_a_study_is_found_opened_elsewhere_and_sent(
    open_page: Open, origin: str, workstation: Receiver, shown: Shown
) -> None:
    wanted = study("CT abdomen", 1)
    page = open_page(origin)
    family, given = str(wanted[0].PatientName).split("^")
    page.fill("[name=patient]", family.lower())
    page.wait_for_function(
        """name => {
            const found = [...document.querySelectorAll('[data-testid=studies] a')];
            return found.length && found.every(one => one.innerText.includes(name));
        }""",
        arg=f"{family}, {given}",
    )
    shown(page, "found")
    page.click(f"[data-study='{wanted[0].StudyInstanceUID}']")
    wait_for_results(page)
    assert texts(page, "class")[0] == "CT abdomen"
    page.click("[data-testid=query-picture]")
    wait_until_drawn(page, 0)
    link = page.locator("[data-testid=viewer-link]").first
    assert link.get_attribute("href").endswith(f"={wanted[0].StudyInstanceUID}")
    page.locator("[data-testid=send]").first.click()
    page.wait_for_selector(f"text={len(wanted)} images queued for {workstation.peer.ae_title}")
    for _ in range(100):
        if len(workstation.requests) == len(wanted):
            break
        page.wait_for_timeout(100)
    sent = {str(request.AffectedSOPInstanceUID) for request in workstation.requests}
    assert sent == {str(image.SOPInstanceUID) for image in wanted}


def test_a_picture_needs_a_modality(open_page: Open, origin: str, shown: Shown) -> None:
    page = open_page(origin, expected="status of 400")
    page.wait_for_selector("[data-testid=studies] a")
    drop(page, "hand.png", picture_file(study("CR hand", STRANGER)[0]))
    page.wait_for_selector("[data-testid=file-modality]", state="visible")
    shown(page, "modality")
    page.select_option("[data-testid=file-modality]", "CR")
    page.click("[data-testid=file-search]")
    wait_for_results(page)
    assert texts(page, "class")[0] == "CR hand"
    drop(page, "broken.dcm", b"\0" * 200)
    page.wait_for_selector(".notices .message.bad")
    shown(page, "refused", picture=False)


def test_the_keyboard_is_enough(open_page: Open, origin: str) -> None:
    wanted = study("CR chest", 0)[0]
    page = open_page(origin)
    page.wait_for_selector("[data-testid=studies] a")
    page.keyboard.press("/")
    page.keyboard.type(str(wanted.PatientID))
    page.wait_for_function(
        "() => document.querySelectorAll('[data-testid=studies] a').length === 2"  # and a CT
    )
    focused = "document.activeElement.dataset.study"
    for _ in range(30):  # a date alone has four stops
        page.keyboard.press("Tab")
        if page.evaluate(focused) == wanted.StudyInstanceUID:
            break
    assert page.evaluate(focused) == wanted.StudyInstanceUID
    page.keyboard.press("Enter")
    wait_for_results(page)
    assert page.evaluate("document.activeElement.id") == "answers-title"
    before = images(page)
    for key in ("g", "ArrowRight", "+", "ArrowRight", "-", "a"):
        page.keyboard.press(key)
    page.wait_for_selector("[data-testid=rounds] img")
    wait_for_results(page)
    assert not set(before[1:3]) & set(images(page))
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    wait_until_drawn(page, 1)
    plain = canvas(page, 1)
    page.keyboard.press("s")
    wait_until_changed(page, 1, plain)
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-testid=viewer]", state="hidden")
    for _ in range(2):  # the round, then the search
        page.go_back()
    page.wait_for_function(f"() => {focused} === '{wanted.StudyInstanceUID}'")


def test_a_phone_shows_it_without_scrolling_sideways(
    open_page: Open, origin: str, shown: Shown
) -> None:
    page = open_page(origin, **PHONE)

    def check(name: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
        shown(page, name, picture=name == "phone")

    page.wait_for_selector("[data-testid=studies] a")
    check("phone-start")
    start_from_file(page)
    assert page.locator(RESULT).first.bounding_box()["y"] < PHONE["viewport"]["height"] - 150
    check("phone")
    page.locator(f"{RESULT} .picture").first.tap()
    wait_until_drawn(page, 1)
    tops = [
        page.locator(part).nth(pane).bounding_box()["y"]
        for pane in (0, 1)
        for part in (".stage-box", ".pane-foot")
    ]
    assert tops == sorted(tops)  # what is known of the query is not taken for the result's
    check("phone-view")
    page.goto(f"{origin}/administration")
    page.wait_for_selector("#overview", state="visible")
    check("phone-administration")


def test_a_theme_is_chosen_and_remembered(open_page: Open, origin: str, shown: Shown) -> None:
    page = open_page(origin)
    start_from_file(page)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("[data-theme-switch]")
    page.reload()
    wait_for_results(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    shown(page, "light")


def test_what_failed_is_tried_again(
    open_page: Open, origin: str, node: RunningNode, shown: Shown
) -> None:
    whole = study("CT head", STRANGER)[0]
    damaged = copy.deepcopy(whole)
    damaged.PixelData = whole.PixelData[:1000]
    page = open_page(origin, "/administration")
    failed, embedded = (page.get_by_test_id(f"state-{state}") for state in ("failed", "embedded"))
    page.wait_for_selector("#no-failures", state="visible")
    held = int(embedded.inner_text())
    arriving = [damaged, *study("CT head", STRANGER + 1), *study("CT head", STRANGER + 2)]
    with association(node.dicom_port, (CTImageStorage, EXPLICIT)) as opened:
        for image in arriving:
            answer = store_bytes(opened, CTImageStorage, image.SOPInstanceUID, encoded(image))
            assert answer.Status == 0
    page.wait_for_selector("[data-testid=failures] tbody tr")  # without loading the page again
    page.wait_for_function(EMBEDDED, arg=str(held + len(arriving) - 1))
    assert failed.inner_text() == "1"
    assert page.get_by_role("img", name="Queries in the last hour").is_visible()
    shown(page, "administration", whole=True)
    stores = open_stores(Settings(data_dir=node.data_dir), create=False)
    write(whole, archive_file(stores, str(whole.SOPInstanceUID)))  # the disk was repaired
    stores.close()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("text=1 object will be tried again")
    page.wait_for_selector("#no-failures", state="visible")
    page.wait_for_function(EMBEDDED, arg=str(held + len(arriving)))
    assert failed.inner_text() == "0"
