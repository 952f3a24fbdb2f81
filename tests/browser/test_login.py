"""People log in, see what their rights allow, and are led nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cbmir_node.web.access.passwords import hash_password
from tests.browser.running import start_node
from tests.browser.story import dicom_file, drop, wait_for_results
from tests.phantoms.objects import study

Open = Callable[..., Any]
REFUSED = "status of 401"  # the console tells of every one, wanted or not
HOSTILE = (
    "https://elsewhere.example/",
    "//elsewhere.example/",
    "/\\elsewhere.example/",
    "\\\\elsewhere.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http://[",
    "/login?next=/login",
    "",
)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[str]:
    """Run a node with two people: Erika may do everything, Rolf may look."""
    password = hash_password("correct horse")
    running = start_node(
        tmp_path_factory.mktemp("login"),
        [image for number in range(3) for image in study("CR hand", number)],
        "[http.users.erika]\n"
        f'password_hash = "{password}"\nrights = ["read", "store", "administer"]\n'
        f'[http.users.rolf]\npassword_hash = "{password}"\nrights = ["read"]\n',
    )
    yield f"http://127.0.0.1:{running.http_port}"
    running.kill()


def test_a_page_whose_script_is_late_puts_no_password_into_an_address(
    open_page: Open, origin: str
) -> None:
    page = open_page(origin, "/login", java_script_enabled=False)
    page.fill("[name=password]", "correct horse")
    page.keyboard.press("Enter")
    assert page.locator("#submit").is_disabled()
    assert page.locator("#login").get_attribute("method") == "post"
    assert page.url == f"{origin}/login"


def log_in(page: Any, name: str, password: str) -> None:
    page.wait_for_selector("#submit:enabled")
    page.fill("[name=name]", name)
    page.fill("[name=password]", password)
    page.keyboard.press("Enter")


def test_a_login_leads_back_to_where_it_was_asked_for(
    open_page: Open, origin: str, shown: Callable[..., None]
) -> None:
    page = open_page(origin, "/administration", expected=REFUSED)
    page.wait_for_url("**/login?next=**")
    log_in(page, "erika", "wrong")
    page.wait_for_selector("text=Name and password do not belong together")
    assert page.evaluate("document.activeElement.name") == "password"
    assert page.input_value("[name=password]") == ""
    shown(page, "login")
    log_in(page, "erika", "correct horse")
    page.wait_for_url(f"{origin}/administration")
    page.wait_for_selector("#overview", state="visible")
    assert page.inner_text("#user") == "erika"
    page.click("#log-out")
    page.wait_for_url("**/login?next=**")
    page.goto(f"{origin}/")
    page.wait_for_url("**/login?next=**")


def test_rights_decide_what_is_offered(
    open_page: Open, origin: str, shown: Callable[..., None]
) -> None:
    page = open_page(origin, "/", expected="status of 40")
    log_in(page, "rolf", "correct horse")
    page.wait_for_selector("[data-testid=studies] a")
    assert page.is_hidden("#administration-link")
    drop(page, "hand.dcm", dicom_file(study("CR hand", 9)[0]))
    wait_for_results(page, 3)
    assert page.locator("[data-testid=store]").count() == 0
    page.goto(f"{origin}/administration")
    page.wait_for_selector("text=You may not see this page")
    assert page.is_hidden("#overview")
    shown(page, "forbidden", picture=False)


def test_a_dropped_file_is_stored_when_asked(open_page: Open, origin: str) -> None:
    page = open_page(origin, "/", expected=REFUSED)
    log_in(page, "erika", "correct horse")
    page.wait_for_selector("[data-testid=studies] a")
    drop(page, "hand.dcm", dicom_file(study("CR hand", 9)[0]))
    wait_for_results(page, 3)
    page.click("[data-testid=store]")
    page.wait_for_selector("text=Stored in the node")


def test_next_leads_to_no_other_site(open_page: Open, origin: str) -> None:
    page = open_page(origin, "/login?next=//elsewhere.example/", expected=REFUSED)
    led = page.evaluate(
        """async hostile => {
            const { nextPage } = await import('/static/login.js');
            const search = next => '?' + new URLSearchParams({ next });
            return hostile.map(next => nextPage(search(next), location.href));
        }""",
        [*HOSTILE, f"blob:{origin}/x", "/?study=1.2.3"],
    )
    assert led == [f"{origin}/"] * (len(HOSTILE) + 1) + [f"{origin}/?study=1.2.3"]
    log_in(page, "rolf", "correct horse")
    page.wait_for_url(f"{origin}/")
