"""`Audience` stands in for people: it asks for rankings and clicks on what it likes, by a taste of its own.

What it likes is what real viewers like, and some genres more and others less than they do, by a draw from a seed; so a
model of those viewers is right in part, and can learn the rest. It clicks less often than they praise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import httpx

SHOWN = 20
"""Films of a request, all of which the audience looks at."""
USUAL_LOGIT = -1.35
"""What a film that four in ten viewers like is clicked with: one time in five."""
USUAL_SHARE, BY_SHARE = 0.4, 4.0
"""The usual share of viewers who like a film, and how much the logit rises with that share."""
BY_GENRE = 1.0
"""How much the logit rises, or falls, with the genres of a film."""
FEEDBACK_AT_ONCE = 50
TIMEOUT_S = 10.0


class Film(NamedTuple):
    """An item of the demo."""

    genres: Sequence[str]
    like_share: float = USUAL_SHARE
    """The share of real viewers who like it."""


@dataclass
class Visits:
    """What the audience did."""

    shown: int = 0
    clicks: int = 0
    predicted: float = 0.0
    """The sum of the probabilities that the service gave for what it showed."""
    versions: tuple[int, ...] = ()
    """Versions that answered."""

    @property
    def copc(self) -> float:
        """Return clicks over predicted clicks: 1 where the probabilities are true."""
        return self.clicks / self.predicted if self.predicted else math.nan


class Audience:
    """Simulated users of one service. Not safe to use from several threads."""

    def __init__(
        self,
        http: httpx.Client,
        users: Sequence[str],
        films: Mapping[str, Film],
        seed: int = 0,
        dice: random.Random | None = None,
    ) -> None:
        """
        Args:
            http: its base URL is that of the service.
            users: ids of users to ask for.
            films: what it may see, by id.
            seed: of what it likes.
            dice: decide whom it asks for, what it sees and what it clicks on, by default others each time: an
                audience that comes again and does the same would have a model judged by rows that it has learned.
        """
        self._http = http
        self._users = users
        self._films = films
        self._items = list(films)
        self._dice = dice or random.Random()
        taste = random.Random(seed)
        names = sorted({genre for film in films.values() for genre in film.genres})
        self._liking = {name: taste.choice((-BY_GENRE, BY_GENRE)) for name in names}

    def click_probability(self, item_id: str) -> float:
        """Return how likely the audience clicks on an item that it sees."""
        film = self._films[item_id]
        liking = [self._liking[genre] for genre in film.genres]
        by_genre = sum(liking) / len(liking) if liking else 0.0
        return 1 / (1 + math.exp(-(USUAL_LOGIT + BY_SHARE * (film.like_share - USUAL_SHARE) + by_genre)))

    def visit(self, clicks: int, report: Callable[[Visits], None] = lambda visits: None) -> Visits:
        """Ask for rankings until there are so many clicks, and send them as feedback.

        Raises httpx.HTTPError if the service does not answer or refuses.
        """
        visits, feedback = Visits(), []
        while visits.clicks < clicks:
            shown = self._dice.sample(self._items, min(SHOWN, len(self._items)))
            answer = self._post("rank", {"user_id": self._dice.choice(self._users), "item_ids": shown}).json()
            visits.versions = tuple(dict.fromkeys([*visits.versions, answer["version"]]))
            for item in answer["items"]:
                visits.shown += 1
                visits.predicted += item["score"]
                if self._dice.random() < self.click_probability(item["item_id"]):
                    visits.clicks += 1
                    feedback.append({"request_id": answer["request_id"], "item_id": item["item_id"], "type": "click"})
            if len(feedback) >= FEEDBACK_AT_ONCE:
                self._post("feedback", feedback)
                feedback = []
                report(visits)
        if feedback:
            self._post("feedback", feedback)
        return visits

    def _post(self, path: str, body: object) -> httpx.Response:
        return self._http.post(path, json=body, timeout=TIMEOUT_S).raise_for_status()
