"""``/api/administration`` and ``/metrics``: what the node tells of itself, and trying again."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cbmir_node.catalog.work.requests import NOT_KEPT
from cbmir_node.observation.rates import RateSampler
from cbmir_node.web.access.tokens import new_token, token_sha256
from cbmir_node.worker import Worker
from tests.conftest import REPOSITORY
from tests.objects import make_object
from tests.small_node import drain, keep, states
from tests.web.conftest import WebNode

BROKEN = {"PixelData": b"\0" * 32}  # far too short for 16 x 16


@pytest.fixture(scope="module")
def embed(web: WebNode) -> Iterator[Callable[[], int]]:
    """Return what embeds all that is pending, as the worker beside the node would."""
    stores = web.node.stores
    with Worker(stores) as worker:
        yield lambda: drain(worker, stores.registry.active())


def report(web: WebNode, client: httpx.Client) -> dict[str, Any]:
    web.node._counts.present()  # what a busy machine has counted slowly would be told for 5 s
    told: dict[str, Any] = client.get("/api/administration").json()
    return told


def test_the_node_at_a_glance(web: WebNode, client: httpx.Client) -> None:
    told = report(web, client)
    assert told["objects"] == {"patients": 4, "studies": 5, "series": 6, "instances": 8}
    assert told["states"] == {
        "pending": 0,
        "embedded": 8,
        "no_pixels": 0,
        "failed": 0,
        "skipped": 0,
    }
    assert (told["problems"], told["failures"]) == ([], [])
    model = told["model"]
    assert (model["name"], model["dimension"], model["next"]) == ("tiny", 32, None)
    assert model["provider"] == "CPUExecutionProvider"
    assert told["index"] == {"vectors": 10, "device": "cpu"}
    disk = told["disk"]
    assert 0 < disk["archive_bytes"] < disk["free_bytes"] < disk["total_bytes"]
    assert disk["reserve_bytes"] == web.node.settings.archive.reserve_mib << 20
    assert told["associations"] == {"open": 0, "accepted": 0, "rejected": 0, "aborted": 0}
    assert told["forwards"] == {"pending": 0, "sent": 0, "refused": 0, "given_up": 0}
    assert (told["destinations"], told["notices"]) == ([], [])


def test_failures_are_grouped_and_tried_again(
    web: WebNode, client: httpx.Client, embed: Callable[[], int]
) -> None:
    stores, folder = web.node.stores, web.node.settings.data_dir
    uids = keep(stores, folder, make_object(**BROKEN), make_object(**BROKEN))
    embed()
    (group,) = report(web, client)["failures"]
    assert (group["instances"], group["can_be_retried"]) == (2, True)
    assert group["example_sop_instance_uid"] == uids[0]
    asked = {"examples": [{"level": "image", "uid": uids[0]}]}
    detail = client.post("/api/similar", json=asked).json()["detail"]
    assert f"could not be embedded: {group['reason']}" in detail
    failed = client.get(f"/api/subjects/image/{uids[0]}").json()
    assert (failed["embedded"], failed["state"]) == (False, "failed")
    assert failed["reason"] == group["reason"]
    assert client.post("/api/administration/retry", json={"reason": "?"}).json() == {"instances": 0}
    retried = client.post("/api/administration/retry", json={"reason": group["reason"]})
    assert retried.json() == {"instances": 2}
    assert states(stores, uids) == ["pending", "pending"]
    assert report(web, client)["states"]["pending"] == 2
    embed()
    assert states(stores, uids) == ["failed", "failed"]
    assert client.post("/api/administration/retry", json={}).json() == {"instances": 2}


def test_what_lacks_its_pixels_is_not_tried_again(web: WebNode, client: httpx.Client) -> None:
    (uid,) = keep(web.node.stores, web.node.settings.data_dir, make_object(**BROKEN))
    web.evict(uid)
    with web.node.stores.catalog.write() as connection:
        connection.exec_driver_sql(
            "UPDATE work SET state = 'failed', reason = ? WHERE instance ="
            " (SELECT id FROM instances WHERE sop_instance_uid = ?)",
            (NOT_KEPT, uid),
        )
    groups = report(web, client)["failures"]
    assert [group["can_be_retried"] for group in groups if group["reason"] == NOT_KEPT] == [False]
    retried = client.post("/api/administration/retry", json={"reason": NOT_KEPT})
    assert retried.json() == {"instances": 0}


def test_rates_of_the_last_hour(
    web: WebNode, client: httpx.Client, embed: Callable[[], int]
) -> None:
    sampler = RateSampler(web.node._counts, web.node._queries.answered)  # the node's has its time
    sampler.sample()
    keep(web.node.stores, web.node.settings.data_dir, make_object(), make_object())
    example = {"level": "study", "uid": web.objects[0].StudyInstanceUID}
    for _ in range(3):
        assert client.post("/api/similar", json={"examples": [example]}).status_code == 200
    client.post("/api/similar", json={"examples": [{"level": "study", "uid": "1.2"}]})
    sampler.sample()
    embed()
    sampler.sample()
    rates = sampler.rates()
    assert (rates.received, rates.embedded, rates.queries) == ([2, 0], [0, 2], [3, 0])
    told = report(web, client)["rates"]
    assert told["interval_s"] == 20
    assert len(told["received"]) == len(told["embedded"]) == len(told["queries"])


def test_the_last_errors_are_told_once_each(client: httpx.Client) -> None:
    logging.getLogger("py.warnings").warning("/usr/lib/x.py:1: UserWarning: odd value in a file")
    log = logging.getLogger("cbmir_node.some_part")
    log.info("nothing to tell")
    for number in range(60):
        log.warning("trouble %d", number)
        log.error("the same again and again", exc_info=ValueError("why"))
    errors = client.get("/api/administration").json()["errors"]
    assert len(errors) == 50
    assert "py.warnings" not in {error["source"] for error in errors}
    first = errors[0]
    assert (first["level"], first["source"]) == ("ERROR", "cbmir_node.some_part")
    assert first["message"] == "the same again and again: ValueError: why"
    assert (first["times"], errors[1]["message"]) == (60, "trouble 59")
    assert re.match(r"\d{4}-\d\d-\d\dT.*Z$", first["time"])


def test_metrics_of_requests_name_routes_and_no_patient(web: WebNode, client: httpx.Client) -> None:
    uid = web.objects[0].StudyInstanceUID
    client.get(f"/api/subjects/study/{uid}")
    client.request("PROPFIND", "/nowhere")
    text = client.get("/metrics").text
    assert uid not in text
    subject = 'method="GET",route="/api/subjects/{level}/{uid}",status="200"'
    assert f"cbmir_http_requests_total{{{subject}}}" in text
    assert 'cbmir_http_requests_total{method="other",route="other",status="' in text
    assert 'cbmir_similarity_query_seconds_count{outcome="answered"}' in text


def test_every_metric_of_the_dashboard_exists(client: httpx.Client) -> None:
    dashboard = json.loads((REPOSITORY / "conf" / "grafana-dashboard.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"\b(?:cbmir|process)_\w+", target["expr"])
    }
    families = text_string_to_metric_families(client.get("/metrics").text)
    known = {family.name for family in families}
    assert len(asked) >= 20
    assert {re.sub("_(total|bucket|count)$", "", name) for name in asked} - known == set()


def test_every_metric_is_documented(client: httpx.Client) -> None:
    documented = (REPOSITORY / "docs" / "operations.md").read_text()
    families = text_string_to_metric_families(client.get("/metrics").text)
    named = {family.name for family in families if family.name.startswith("cbmir_")}
    written = {name.removesuffix("_total") for name in re.findall(r"`(cbmir_\w+)", documented)}
    assert named - written == set()


def test_readers_may_send_but_neither_store_nor_administer(
    start_web: Callable[..., WebNode],
) -> None:
    token = new_token()
    guarded = start_web(tokens={"viewer": {"sha256": token_sha256(token)}})
    with guarded.client(headers={"Authorization": f"Bearer {token}"}) as viewer:
        node = viewer.get("/api/node").json()
        assert node["user"] == {"name": "viewer", "rights": ["read"]}
        assert viewer.get("/api/administration").status_code == 403
        assert viewer.post("/api/administration/retry", json={}).status_code == 403
        assert viewer.post("/api/examples/some-token/store").status_code == 403
        study = guarded.objects[0].StudyInstanceUID
        asked = {"study_instance_uid": study, "destination": "PACS"}
        assert viewer.post("/api/send", json=asked).status_code == 404  # not a peer here
    with guarded.client() as stranger:
        assert stranger.get("/api/node").status_code == 401
        assert stranger.get("/metrics").status_code == 401
