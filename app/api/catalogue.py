"""GET /catalogue and what is below it: titles and features for the page, where CTR_CATALOGUE names them."""

from __future__ import annotations

import asyncio
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from pydantic import Field

from app.api.problems import documented_problems
from app.api.response_model import ResponseModel
from app.api.schemas import MAX_ID
from app.errors import ActionFailed, ConfigError, DataError, NotFound, StoreError
from app.features.catalogue import KINDS, Catalogue, Entries, Entry, Kind
from app.features.store import FeatureStore, RawFeatures
from app.runtime.thread_priority import on_background_thread

log = structlog.get_logger(__name__)

MAX_LIMIT = 500
MAX_QUERY = 200
MAX_VALUE, CUT = 500, "…"
"""Characters that are shown of a stored value, and what stands behind those of a longer one."""

PROBLEMS = documented_problems(
    {
        404: "There is no catalogue",
        503: "The catalogue or the feature store cannot be read",
    }
)


class CatalogueEntry(ResponseModel):
    """An item or a user of the catalogue."""

    id: str
    title: str = Field(description="Empty where the catalogue has none")
    features: dict[str, str] = Field(description="As the catalogue has them, which need not be as they are stored")


class CatalogueEntries(ResponseModel):
    """The answer of a search."""

    total: int = Field(description="How many were found")
    entries: list[CatalogueEntry] = Field(description="The first of them")


class CatalogueKind(ResponseModel):
    """What the catalogue holds of one kind."""

    count: int
    complete: bool = Field(description="False where the file has more than are held")
    facets: dict[str, list[str]] = Field(description="Columns of few values, and these, the most frequent first")


class CatalogueSummary(ResponseModel):
    """What the catalogue holds."""

    items: CatalogueKind
    users: CatalogueKind


class StoredUser(ResponseModel):
    """What the feature store has of a user."""

    user_id: str
    known: bool
    features: dict[str, str] = Field(description="Of the fields that live versions read, as stored")


def router(catalogue: Catalogue | None, store: FeatureStore, timeout_s: float) -> APIRouter:
    """Return the routes of the catalogue, which answer 404 where there is none.

    Args:
        timeout_s: how long the store may take to answer for a user.
    """
    routes = APIRouter(prefix="/catalogue", tags=["catalogue"], responses=PROBLEMS)
    reading = asyncio.Lock()

    def existing() -> Catalogue:
        if catalogue is None:
            raise NotFound("there is no catalogue here: CTR_CATALOGUE names one")
        return catalogue

    async def entries(kind: Kind) -> Entries:
        files = existing()
        async with reading:
            try:
                return await on_background_thread(files.entries, kind)
            except (ConfigError, DataError) as error:
                log.warning("catalogue_unreadable", kind=kind, error=str(error))
                raise ActionFailed(f"the {kind} of the catalogue cannot be read; the log says why") from error

    @routes.get("")
    async def catalogue_summary() -> CatalogueSummary:
        """Say what the catalogue holds, and by which columns it can be searched."""
        kinds = {kind: _summary(await entries(kind)) for kind in KINDS}
        return CatalogueSummary(items=kinds["items"], users=kinds["users"])

    @routes.get("/features")
    async def stored_user(user_id: Annotated[str, Query(min_length=1, max_length=MAX_ID)]) -> StoredUser:
        """Answer with the features of a user as a request would read them, though they be not in the catalogue."""
        existing()
        try:
            user = (await store.fetch(user_id, [], timeout_s)).user
        except StoreError as error:
            raise ActionFailed("the feature store does not answer") from error
        if user is None:
            raise ActionFailed("this user's features cannot be read")
        return StoredUser(user_id=user_id, known=bool(user), features=_shown(user))

    @routes.get("/{kind}")
    async def search_catalogue(
        kind: Kind,
        *,
        ids: Annotated[
            list[str], Query(default_factory=list, max_length=MAX_LIMIT, description="Ids, in place of a search")
        ],
        q: Annotated[str, Query(max_length=MAX_QUERY, description="A part of the title, or an id")] = "",
        facet: Annotated[str, Query(max_length=MAX_QUERY, description="Column that must have the value")] = "",
        value: Annotated[str, Query(max_length=MAX_QUERY, description="Value of the facet's column")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 20,
    ) -> CatalogueEntries:
        """Search items or users by title and by a column."""
        among = await entries(kind)
        if ids:
            known = among.by_ids(ids)
            return _found(len(known), known)
        found = await on_background_thread(among.search, q, (facet, value) if facet else None, limit)
        return _found(found.total, found.entries)

    return routes


def _summary(entries: Entries) -> CatalogueKind:
    return CatalogueKind(count=len(entries), complete=entries.complete, facets=entries.facets)


def _found(total: int, entries: list[Entry]) -> CatalogueEntries:
    return CatalogueEntries(total=total, entries=[CatalogueEntry(**entry._asdict()) for entry in entries])


def _shown(user: RawFeatures) -> dict[str, str]:
    return {
        name: _cut(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
        for name, value in user.items()
        if value is not None
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + CUT
