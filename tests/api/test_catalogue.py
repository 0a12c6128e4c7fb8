"""GET /catalogue and what is below it, with a store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from app.features.memory_store import MemoryFeatureStore
from app.features.store import Fetched
from app.main import create_app
from app.settings import Settings
from tests.api.fakes import client

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "items.csv").write_text("id,title,genre\n1,Alien,Horror\n2,Aliens,Action\n3,Heat,Action\n")
    return tmp_path


def service(catalogue: Path | str = "", **settings: object) -> httpx.AsyncClient:
    store = MemoryFeatureStore()
    store.users["4"] = {"age": b"31", "gender": b"", "note": b"\xff" * 2000, "unknown": None}
    return client(create_app(Settings(_env_file=None, catalogue=str(catalogue), **settings), store=store))


async def test_items_are_searched_and_chosen(folder: Path) -> None:
    async with service(folder) as http:
        summary = (await http.get("/catalogue")).json()
        assert summary["items"] == {
            "count": 3,
            "complete": True,
            "facets": {"genre": ["Action", "Horror"]},
        }
        assert summary["users"]["count"] == 0
        found = (await http.get("/catalogue/items", params={"q": "alien", "limit": 1})).json()
        assert found == {"total": 2, "entries": [{"id": "1", "title": "Alien", "features": {"genre": "Horror"}}]}
        chosen = (await http.get("/catalogue/items", params={"facet": "genre", "value": "Action"})).json()
        assert [entry["id"] for entry in chosen["entries"]] == ["2", "3"]
        by_id = (await http.get("/catalogue/items", params={"ids": ["3", "nobody"]})).json()
        assert [entry["id"] for entry in by_id["entries"]] == ["3"]


async def test_a_users_features_are_those_of_the_store(folder: Path) -> None:
    async with service(folder) as http:
        known = (await http.get("/catalogue/features", params={"user_id": "4"})).json()
        assert known["features"]["age"] == "31"
        assert (len(known["features"]["note"]), known["features"]["note"][-1]) == (501, "…"), (
            "a value of megabytes is shown in part"
        )
        assert known["known"]
        unknown = (await http.get("/catalogue/features", params={"user_id": "5"})).json()
        assert unknown == {"user_id": "5", "known": False, "features": {}}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/catalogue/films", 422),
        ("/catalogue/items?limit=0", 422),
        ("/catalogue/items?limit=501", 422),
        ("/catalogue/items?q=" + "x" * 201, 422),
        ("/catalogue/items?" + "&".join(f"ids={n}" for n in range(501)), 422),
        ("/catalogue/features", 422),
        ("/catalogue/features?user_id=", 422),
    ],
)
async def test_bad_questions_are_problems(path: str, status: int, folder: Path) -> None:
    async with service(folder) as http:
        response = await http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


async def test_without_a_catalogue_there_is_none(folder: Path) -> None:
    async with service() as http:
        for path in ("/catalogue", "/catalogue/items", "/catalogue/features?user_id=4"):
            response = await http.get(path)
            assert response.status_code == 404
            assert "CTR_CATALOGUE" in response.json()["detail"]


async def test_a_catalogue_asks_for_a_key_where_ranking_does(folder: Path) -> None:
    async with service(folder, api_keys="a key") as http:
        assert (await http.get("/catalogue/items")).status_code == 401
        assert (await http.get("/models/1/report")).status_code == 401
        assert (await http.get("/catalogue/items", headers={"X-API-Key": "a key"})).status_code == 200
        assert (await http.get("/web/page.js")).status_code == 200, "the page itself has to be shown"


async def test_a_file_that_cannot_be_read_is_a_problem_and_no_crash(folder: Path) -> None:
    (folder / "items.csv").write_text("film,title\n1,Alien\n")
    async with service(folder) as http:
        response = await http.get("/catalogue/items")
        assert response.status_code == 503
        assert "the log says why" in response.json()["detail"]
        assert (await http.get("/")).status_code == 200


async def test_features_that_could_not_be_read_are_not_called_missing(folder: Path) -> None:
    class Unreadable(MemoryFeatureStore):
        async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
            return Fetched(None, ())

    app = create_app(Settings(_env_file=None, catalogue=str(folder)), store=Unreadable())
    async with client(app) as http:
        answer = await http.get("/catalogue/features", params={"user_id": "4"})
        assert (answer.status_code, answer.json()["detail"]) == (503, "this user's features cannot be read")
