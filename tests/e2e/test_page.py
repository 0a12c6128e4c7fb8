"""The page in a Chromium, before a real service: what people do there, and what they see happen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from playwright.sync_api import Browser, Page, Route, expect

from app.features.loading.embedded_valkey import EmbeddedValkey
from app.registry.store.model_store import ModelStore
from tests import loopback
from tests.e2e.browser import PATIENCE_MS, assert_accessible, chromium, opened
from tests.e2e.conftest import Running, Serve, fill, services
from tests.e2e.page_pictures import VIEWS, take_pictures
from tests.factories import USERS, publish_files, publish_tiny, raw_items, raw_users, written
from tests.registry.torchscript.variants import publish_model, retrained_model

ADMIN_KEY = "the admin's key"

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    items = [{"id": number, "title": f"Film No. {number}", **raw} for number, raw in raw_items().items()]
    users = [{"id": number, **raw} for number, raw in raw_users().items()]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    return folder


@pytest.fixture(scope="module")
def service(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, ModelStore]]:
    """A service with two versions live, and a third to promote, whose page may do so."""
    folder = tmp_path_factory.mktemp("page")
    store = ModelStore(folder / "model_store", "deepfm")
    publish_tiny(store)
    publish_tiny(store, 1, labels=("canary",), share=0.1)
    with (
        EmbeddedValkey(folder / "valkey") as valkey,
        redis.Redis.from_url(valkey.url, decode_responses=True) as features,
        services(store, valkey.url, folder / "data") as start,
    ):
        fill(features, raw_users(), raw_items())
        running = start(CATALOGUE=str(catalogue), ADMIN_KEY=ADMIN_KEY, METRICS="open")
        running.wait_until(lambda health: "canary" in health["model"]["labels"])
        yield running, store


def wait_for_items(page: Page) -> None:
    """Wait until the page has put its own candidates into the form."""
    expect(page.locator("#item-count")).to_have_text(re.compile(r"\d+ items?"))


def choose(page: Page, items: str) -> None:
    """Type candidates, once the page has put its own there."""
    wait_for_items(page)
    page.locator("#items").fill(items)


def ranked_bodies(page: Page) -> list[str]:
    """Return the list to which the bodies of the page's requests for POST /rank are added from now on."""
    bodies: list[str] = []
    page.on("request", lambda request: bodies.append(request.post_data) if request.url.endswith("/rank") else None)
    return bodies


def hold(page: Page, url: str) -> list[Route]:
    """Hold the page's requests to these addresses up; returns them as they come, to be continued."""
    held: list[Route] = []
    page.route(url, lambda route: held.append(route))
    return held


def wait_until_held(page: Page, held: list[Route]) -> None:
    while not held:
        page.wait_for_timeout(10)


def rank(page: Page) -> None:
    wait_for_items(page)
    page.get_by_role("button", name="Rank", exact=True).click()
    expect(page.locator("#rows tr").first).to_be_visible()


def places(page: Page) -> list[str]:
    """The ids in the order of the answer."""
    return [text.split()[-1] for text in page.locator("#rows td.item").all_inner_texts()]


def test_a_user_and_candidates_are_found_by_title_and_ranked_as_by_the_service(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        expect(page.locator("#user-hint")).to_contain_text(f"one of {USERS}")
        choose(page, "")
        page.get_by_label("Title or id").fill("film no. 1")
        expect(page.locator("#found-count")).to_have_text("11 found, the first:")
        page.get_by_role("button", name="Add Film No. 12").click()
        expect(page.locator("#item-count")).to_have_text("1 item")
        page.get_by_role("button", name="Add these 11").click()
        expect(page.locator("#item-count")).to_have_text("11 items")
        page.get_by_label("User one of").fill("4")
        rank(page)
        ranked = loopback.post(
            f"{service[0].url}/rank",
            json={"user_id": "4", "item_ids": ["12", *(str(n) for n in (1, *range(10, 20)) if n != 12)]},
        ).json()
        assert places(page) == [item["item_id"] for item in ranked["items"]]
        expect(page.locator("#rows td.item").first).to_contain_text("Film No. ")
        expect(page.locator("#legend")).to_contain_text("score")


def test_candidates_are_taken_by_genre(browser: Browser, service: tuple[Running, ModelStore]) -> None:
    dramas = [number for number, raw in raw_items().items() if "Drama" in raw["genres"]]
    with opened(browser, service[0].url) as page:
        choose(page, "")
        page.get_by_label("Only").select_option('["genres","Drama"]')
        page.get_by_role("button", name=f"Add these {len(dramas)}").click()
        assert sorted(page.locator("#items").input_value().split()) == sorted(dramas)


def test_a_changed_feature_moves_the_ranking_and_can_be_undone(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        page.get_by_label("User one of").fill("4")
        choose(page, " ".join(str(n) for n in range(25)))
        rank(page)
        before = places(page)
        page.get_by_text("what if they were others").click()
        age, hour = page.get_by_label("age", exact=False), page.get_by_label("hour")
        expect(age.first, "what the store has is shown").to_have_value(str(raw_users()["4"]["age"]))
        hour.fill("21")
        expect(page.locator("#what-if")).to_contain_text("context.hour missing → 21")
        after = places(page)
        moved = {item: before.index(item) - place for place, item in enumerate(after)}
        shown = dict(zip(after, page.locator("#rows td.move").all_inner_texts(), strict=True))
        for item, steps in moved.items():
            assert shown[item].split()[-1].lstrip("▲▼") == (str(abs(steps)) if steps else "·")
        assert any(steps for steps in moved.values())
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("#what-if")).to_be_hidden()
        assert (places(page), hour.input_value()) == (before, "")


def test_who_ranks_before_the_form_is_filled_ranks_for_the_user_it_is_filled_with(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        bodies = ranked_bodies(page)
        waiting = hold(page, "**/catalogue/users?*")
        page.reload()
        wait_for_items(page)
        page.get_by_role("button", name="Rank", exact=True).click()
        wait_until_held(page, waiting)
        assert bodies == []
        for route in waiting:
            route.continue_()
        expect(page.locator("#rows tr").first).to_be_visible()
        assert json.loads(bodies[0])["user_id"] == page.locator("#user").input_value() != ""


def test_the_page_puts_nobody_before_what_somebody_is_about_to_type(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        waiting = hold(page, "**/catalogue/users?*")
        page.reload()
        page.locator("#user").focus()
        wait_until_held(page, waiting)
        with page.expect_response("**/catalogue/items?*ids=*"):  # asked for once the user is there
            for route in waiting:
                route.continue_()
        page.keyboard.type("4")
        expect(page.locator("#user")).to_have_value("4")


def test_what_is_changed_of_one_user_is_not_sent_for_another(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        bodies = ranked_bodies(page)
        page.get_by_label("User one of").fill("5")
        rank(page)
        page.get_by_text("what if they were others").click()
        page.get_by_label("age", exact=False).first.fill("77")
        expect(page.locator("#what-if")).to_contain_text("→ 77")
        page.get_by_label("User one of").fill("6")
        page.locator("#user").press("Tab")
        expect(page.locator("#what-if"), "nor put back for another by Undo").to_be_hidden()
        page.locator("#user").press("Enter")
        expect(page.locator("#what-if")).to_be_hidden()
        page.get_by_label("hour").fill("3")
        expect(page.locator("#what-if")).to_have_text(re.compile(r"What if context\.hour missing → 3 "))
        sent = [json.loads(body) for body in bodies]
        assert sent[1]["user_features"] == {"age": 77}
        assert all("user_features" not in body for body in sent if body["user_id"] == "6")


def test_the_late_answer_for_another_user_is_not_shown(browser: Browser, service: tuple[Running, ModelStore]) -> None:
    with opened(browser, service[0].url) as page:
        page.get_by_label("User one of").fill("4")
        page.locator("#user").press("Tab")
        rank(page)
        page.get_by_text("what if they were others").click()
        age = page.locator("input[data-entity=user][data-field=age]")
        held = hold(page, "**/rank")
        age.fill("78")
        wait_until_held(page, held)
        page.get_by_label("User one of").fill("5")
        page.locator("#user").press("Tab")
        expect(age).to_have_value(str(raw_users()["5"]["age"]))
        with page.expect_response("**/rank"):
            held[0].continue_()
        page.wait_for_timeout(500)  # in which it would be shown
        expect(page.locator("#what-if"), "nor is undone for user 5 what was typed for 4").to_be_hidden()
        page.unroute("**/rank")
        page.get_by_label("hour").fill("3")
        expect(page.locator("#facts")).to_contain_text("stable")
        expect(page.locator("#what-if"), "it is compared with no answer for user 4").to_be_hidden()


def test_what_was_typed_for_a_user_stays_while_the_form_is_filled(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        held = hold(page, "**/catalogue")
        page.reload()
        page.locator("#user").fill("4")
        page.locator("#user").press("Tab")
        page.get_by_text("what if they were others").click()
        age, gender = (page.locator(f"input[data-entity=user][data-field={name}]") for name in ("age", "gender"))
        age.fill("77")
        wait_until_held(page, held)
        for route in held:
            route.continue_()
        expect(gender).to_have_value(raw_users()["4"]["gender"])
        page.unroute("**/catalogue")
        expect(age).to_have_value("77")
        page.get_by_text("Options").click()
        with page.expect_response("**/catalogue/features?*"):
            page.get_by_label("API key").fill("a key")
            page.get_by_label("API key").press("Tab")
        expect(age).to_have_value("77")


def test_a_slow_store_is_asked_on_and_what_was_typed_meanwhile_stays(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url, refused=50) as page:
        asked: list[Route] = []

        def refuse(route: Route) -> None:
            asked.append(route)
            route.fulfill(status=503, json={"title": "the store is slow"})

        page.route("**/catalogue/features?*", refuse)
        page.get_by_label("User one of").fill("4")
        rank(page)
        assert len(asked) >= 3, "who ranks waits for the first attempts alone"
        page.get_by_text("what if they were others").click()
        age, gender = (page.locator(f"input[data-entity=user][data-field={name}]") for name in ("age", "gender"))
        expect(gender, "it is not known to be missing").to_have_attribute("placeholder", "as stored")
        age.fill("77")
        expect(page.locator("#what-if")).to_contain_text("user.age as stored → 77")
        page.unroute("**/catalogue/features?*")
        expect(gender).to_have_value(raw_users()["4"]["gender"])
        expect(age).to_have_value("77")
        bodies = ranked_bodies(page)
        page.get_by_label("hour").fill("3")
        expect(page.locator("#what-if")).to_contain_text(f"user.age {raw_users()['4']['age']} → 77, context.hour")
        assert json.loads(bodies[-1])["user_features"] == {"age": 77}
        page.get_by_role("button", name="All as stored").click()
        expect(age).to_have_value(str(raw_users()["4"]["age"]))
        expect(page.get_by_role("button", name="All as stored")).to_be_hidden()


def test_a_long_value_that_is_shown_in_part_cannot_be_changed(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url) as page:
        features = {"age": "7" * 500, "gender": "ab\n" * 166 + "ab…"}
        answer = {"user_id": "4", "known": True, "features": features}
        page.route("**/catalogue/features?*", lambda route: route.fulfill(json=answer))
        page.get_by_label("User one of").fill("4")
        page.locator("#user").press("Tab")
        age, gender = (page.locator(f"input[data-entity=user][data-field={name}]") for name in ("age", "gender"))
        expect(age).to_have_value(features["age"])
        expect(age).to_be_editable()
        expect(gender).to_have_value("ab" * 167 + "…")
        expect(gender).not_to_be_editable()


def test_ids_with_blanks_and_commas_are_candidates(browser: Browser, service: tuple[Running, ModelStore]) -> None:
    with opened(browser, service[0].url) as page:
        choose(page, '1, "a b" "c,d"\n2')
        page.get_by_label("User one of").fill("4")
        rank(page)
        assert sorted(page.locator("#rows td.item").all_inner_texts())[-2:] == ["a b", "c,d"]


def test_why_an_item_comes_first_adds_up(browser: Browser, service: tuple[Running, ModelStore]) -> None:
    with opened(browser, service[0].url) as page:
        page.get_by_label("User one of").fill("4")
        rank(page)
        why = page.locator("#rows button").first
        why.click()
        expect(page.locator(".explanation h3").first).to_have_text("Parts, which sum to the logit")
        logit = float(page.locator(".explanation strong").inner_text().replace("−", "-"))
        rows = page.locator(".explanation .parts").first.locator("td.number").all_inner_texts()
        values = [float(text.replace("−", "-").replace("±", "")) for text in rows]
        assert sum(values) == pytest.approx(logit, abs=0.0006 * (len(values) + 1)), "each is rounded"
        expect(page.locator(".heat")).to_be_visible()
        assert_accessible(page)
        why.click()
        expect(page.locator(".explanation")).to_have_count(0)


def test_two_versions_are_compared(browser: Browser, service: tuple[Running, ModelStore]) -> None:
    with opened(browser, f"{service[0].url}/#compare") as page:
        expect(page.locator("#left option")).to_have_count(2)
        page.get_by_role("button", name="Compare", exact=True).click()
        expect(page.locator("#compare-facts")).to_contain_text("Spearman")
        body = {
            "user_id": page.locator("#user").input_value(),
            "item_ids": page.locator("#items").input_value().split(),
        }
        answers = [
            loopback.post(f"{service[0].url}/rank", json={**body, "model": label}).json()["items"]
            for label in ("stable", "canary")
        ]
        places = {item["item_id"]: place + 1 for place, item in enumerate(answers[1])}
        shown = page.locator("#compare-rows tr").all_inner_texts()
        for place, (item, text) in enumerate(zip(answers[0], shown, strict=True)):
            cells = text.split("\t")
            assert cells[0].endswith(item["item_id"])
            assert cells[1:3] == [str(place + 1), str(places[item["item_id"]])]
        assert_accessible(page)


def test_a_swap_and_a_canary_are_seen_live_and_a_version_is_promoted_and_rolled_back(
    browser: Browser, serve: Serve, loaded: redis.Redis, store: ModelStore
) -> None:
    publish_model(store, retrained_model(), live=True)
    service = serve(ADMIN_KEY=ADMIN_KEY)
    with opened(browser, f"{service.url}/#live", refused=10) as page:  # there is no catalogue
        events = page.locator("#events")
        expect(events).to_contain_text("Version 1 is stable.")
        store.promote(publish_model(store, retrained_model(seed=1)), "canary", 0.25)
        expect(events).to_contain_text("Version 2 is canary, for 25.0 % of the users.")
        for _ in range(20):
            service.rank()
        expect(page.locator(".tile").filter(has_text="Requests a second")).not_to_contain_text("0.0")
        expect(page.locator(".tile").filter(has_text="Items from the cache")).to_contain_text("%")

        page.get_by_role("link", name="Versions").click()
        expect(page.get_by_role("article")).to_have_count(2)
        page.get_by_label("Admin key").fill("not the key")
        page.get_by_role("button", name="Promote 2").click()
        expect(page.locator("#versions-error")).to_contain_text("401")
        page.get_by_label("Admin key").fill(ADMIN_KEY)
        page.get_by_role("button", name="Promote 2").click()
        expect(page.locator("#versions-done")).to_contain_text("Version 2 is stable")
        service.wait_until(lambda health: health["model"]["version"] == 2)
        page.get_by_role("link", name="Live").click()
        expect(events).to_contain_text("Version 2 is stable, in place of 1.")

        page.get_by_role("link", name="Versions").click()
        page.get_by_role("button", name="Roll back").click()
        expect(page.locator("#versions-done")).to_contain_text("Version 1 is stable")
        service.wait_until(lambda health: health["model"]["version"] == 1)
        assert_accessible(page)


def test_a_version_shows_the_report_of_its_training(
    browser: Browser, serve: Serve, loaded: redis.Redis, store: ModelStore, tmp_path: Path
) -> None:
    page_of_training = b"<!doctype html><html lang=en><title>How it was trained</title><p>Well."
    version = publish_files(store, {**written(0, "deepfm"), "report.html": page_of_training})
    store.update_pointer(stable=version)
    service = serve()
    with opened(browser, f"{service.url}/#versions", refused=10) as page:
        with page.expect_popup() as popup:
            page.get_by_role("link", name="Report of its training").click()
        assert popup.value.title() == "How it was trained"
    assert loopback.get(f"{service.url}/models/7/report").status_code == 404


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1200, 360])
def test_every_view_can_be_read_by_everybody(
    browser: Browser, service: tuple[Running, ModelStore], width: int, dark: bool
) -> None:
    with opened(browser, service[0].url, width=width, dark=dark) as page:
        rank(page)
        page.get_by_text("what if they were others").click()
        page.locator("#rows button").first.click()
        expect(page.locator(".explanation")).to_be_visible()
        for view in VIEWS:
            page.locator(f"nav a[href='#{view}']").click()
            expect(page.locator(f"#{view}")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{view} is scrolled sideways"
            assert_accessible(page)


def test_the_keyboard_is_enough(browser: Browser, service: tuple[Running, ModelStore]) -> None:
    with opened(browser, service[0].url) as page:
        expect(page.locator("#item-count")).to_contain_text("items")
        page.locator("#user").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#rows tr").first).to_be_visible()
        page.locator("#rows button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".explanation")).to_be_visible()


def test_the_page_works_under_a_sub_path_with_keys_and_without_a_catalogue(
    browser: Browser, serve: Serve, loaded: redis.Redis, store: ModelStore
) -> None:
    publish_tiny(store)
    service = serve(ROOT_PATH="/ctr", API_KEYS="a key", DOCS="false")
    with opened(browser, service.url, refused=40) as page:
        page.locator("#items").fill("1 2 3")
        page.get_by_role("button", name="Rank", exact=True).click()
        expect(page.locator("#error")).to_contain_text("401")
        page.get_by_label("API key").fill("a key")  # which is in sight, since the service asked for one
        rank(page)
        assert sorted(places(page)) == ["1", "2", "3"]
        page.get_by_role("link", name="Versions").click()
        expect(page.get_by_role("article")).to_have_count(1)
        assert page.url == f"{service.url}#versions"


def test_what_the_service_refuses_is_said_and_the_next_request_works(
    browser: Browser, service: tuple[Running, ModelStore]
) -> None:
    with opened(browser, service[0].url, refused=1) as page:
        expect(page.locator("#item-count")).to_contain_text("items")
        page.get_by_text("Options").click()
        page.get_by_label("Model label or version").fill("99")
        page.get_by_role("button", name="Rank", exact=True).click()
        expect(page.locator("#error")).to_contain_text("that model is not live")
        page.get_by_label("Model label or version").fill("")
        rank(page)
        expect(page.locator("#error")).to_be_hidden()


def test_pictures_of_the_documentation_can_be_made(
    browser: Browser, service: tuple[Running, ModelStore], tmp_path: Path
) -> None:
    pictures = take_pictures(browser, service[0].url, tmp_path)
    assert {picture.name for picture in pictures} >= {"page.png", "page-why.png", "page-versions.png", "page-live.png"}
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert {picture.name for picture in pictures} == {
        picture.name for picture in (Path(__file__).parents[2] / "docs" / "images").glob("page*.png")
    }
