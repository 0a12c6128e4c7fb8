"""The audience clicks by its taste, sends what it clicked, and knows how true the probabilities are."""

from __future__ import annotations

import json
import random
from collections import Counter

import httpx
import pytest

from app.loadgen.audience import SHOWN, Audience, Film, Visits

FILMS = {str(number): Film(["Comedy"] if number % 2 else ["Drama"]) for number in range(100)}


class Service:
    """Scores every film alike, and keeps the feedback."""

    def __init__(self, score: float = 0.2, status: int = 200) -> None:
        self.score = score
        self.status = status
        self.feedback: list[dict[str, str]] = []
        self.rankings = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if self.status != 200:
            return httpx.Response(self.status, json={"title": "no"})
        if request.url.path == "/feedback":
            self.feedback += body
            return httpx.Response(202, json={"accepted": len(body)})
        self.rankings += 1
        items = [{"item_id": item_id, "score": self.score} for item_id in body["item_ids"]]
        return httpx.Response(200, json={"request_id": f"r{self.rankings}", "version": 3, "items": items})


def audience(service: Service, seed: int = 0) -> Audience:
    http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(service))
    return Audience(http, ["1", "2"], FILMS, seed, random.Random(seed))


def test_it_clicks_on_what_it_likes_and_sends_each_click_once() -> None:
    service = Service()
    crowd = audience(service)
    visits = crowd.visit(400)
    assert 400 <= visits.clicks < 400 + SHOWN
    assert visits.shown == SHOWN * service.rankings
    assert len(service.feedback) == visits.clicks
    assert len({(one["request_id"], one["item_id"]) for one in service.feedback}) == visits.clicks
    liked = [crowd.click_probability(item_id) for item_id in ("0", "1")]
    clicked = Counter(int(one["item_id"]) % 2 for one in service.feedback)
    if liked[0] != liked[1]:
        assert clicked[liked.index(max(liked))] > clicked[liked.index(min(liked))]


def test_clicks_over_expected_ones_are_one_where_the_probabilities_are_true() -> None:
    service = Service()
    crowd = audience(service)
    service.score = sum(map(crowd.click_probability, FILMS)) / len(FILMS)
    visits = crowd.visit(2000)
    assert visits.copc == pytest.approx(1, abs=0.1)
    assert visits.versions == (3,)
    assert Visits().copc != Visits().copc, "nothing was shown"


def test_the_same_seed_does_the_same() -> None:
    one, same, other = Service(), Service(), Service()
    for service, seed in ((one, 1), (same, 1), (other, 2)):
        audience(service, seed).visit(50)
    assert one.feedback == same.feedback != other.feedback


def test_a_service_that_refuses_ends_the_visit() -> None:
    with pytest.raises(httpx.HTTPStatusError):
        audience(Service(status=503)).visit(10)


def test_it_does_something_else_each_time_and_likes_the_same() -> None:
    services = Service(), Service()
    crowds = [
        Audience(httpx.Client(base_url="http://service", transport=httpx.MockTransport(s)), ["1", "2"], FILMS)
        for s in services
    ]
    for crowd in crowds:
        crowd.visit(50)
    assert services[0].feedback != services[1].feedback, "a copy of what it did would be learned and judged by"
    assert [crowd.click_probability("0") for crowd in crowds] == [crowds[0].click_probability("0")] * 2
