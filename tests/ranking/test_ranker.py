from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

from app.errors import DeadlinePassed, EncodingError, InvalidRequest, NoModel
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.ranking.degraded import (
    INVALID_FEATURES,
    ITEMS_UNAVAILABLE,
    MODEL_FALLBACK,
    NOT_FINITE,
    STALE_ITEMS,
    USER_UNAVAILABLE,
)
from app.ranking.explain import Explainer, LogitCalibration
from app.ranking.logit_parts import MAX_ERROR
from app.ranking.ranker import Ranker, Ranking
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.factories import raw_context, raw_item, raw_items, raw_user
from tests.ranking.conftest import expected
from tests.ranking.explanations import effects_of, parts_of

IDS = [str(number) for number in range(30)]


async def ask(ranker: Ranker, request: RankRequest, seconds: float = 10.0) -> Ranking:
    return await ranker.rank(request, time.perf_counter() + seconds)


def scores(ranking: Ranking) -> dict[str, float]:
    return dict(zip(ranking.item_ids, ranking.scores.tolist(), strict=True))


async def test_scores_are_those_of_forward_cold_and_cached(
    ranker: Ranker, features: MemoryFeatureStore, versions: list[Artifact]
) -> None:
    expected_scores = expected(versions[0], "4", raw_user(4), {i: raw_item(int(i)) for i in IDS})
    for _ in range(2):
        ranking = await ask(ranker, RankRequest("4", IDS))
        assert scores(ranking) == pytest.approx(expected_scores, abs=1e-5)
        assert ranking.scores.tolist() == sorted(ranking.scores.tolist(), reverse=True)
        assert ranking.degraded == []
        assert not ranking.missing_user
        assert ranking.missing_items == []
    assert features.fetches == 2, "one round trip per request"


async def test_ties_keep_the_order_of_the_request(ranker: Ranker) -> None:
    unknown = [f"new{number}" for number in (5, 3, 9, 1)]
    ranking = await ask(ranker, RankRequest("4", unknown))
    assert ranking.item_ids == unknown, "items nobody knows score alike"
    assert len(set(ranking.scores.tolist())) == 1


async def test_a_duplicate_is_ranked_once_and_top_k_cuts(ranker: Ranker) -> None:
    ranking = await ask(ranker, RankRequest("4", ["3", "7", "3", "9", "7"]))
    assert sorted(ranking.item_ids) == ["3", "7", "9"]
    best = await ask(ranker, RankRequest("4", ["3", "7", "9"], top_k=1))
    assert best.item_ids == ranking.item_ids[:1]
    assert len(best.candidates) == 3


async def test_unknown_user_and_items_are_named_and_scored_from_defaults(
    ranker: Ranker, versions: list[Artifact]
) -> None:
    ranking = await ask(ranker, RankRequest("nobody", ["1", "nothing"]))
    assert ranking.missing_user
    assert ranking.missing_items == ["nothing"]
    assert scores(ranking) == pytest.approx(
        expected(versions[0], "nobody", {}, {"1": raw_item(1), "nothing": {}}), abs=1e-5
    )


async def test_more_unknown_items_than_are_cached_are_named_and_scored_from_defaults(
    ranker: Ranker, cache: ItemCache, versions: list[Artifact]
) -> None:
    """The cache has four rows for them, and evicts those once a second."""
    for turn in range(3):
        unknown = [f"new{number}" for number in range(100 * turn, 100 * turn + 100)]
        ranking = await ask(ranker, RankRequest("4", [*unknown[:90], "1", "2", *unknown[90:]]))
        assert ranking.missing_items == unknown
        assert ranking.degraded == []
        items = {"1": raw_item(1), "2": raw_item(2)} | {item_id: {} for item_id in unknown}
        assert scores(ranking) == pytest.approx(expected(versions[0], "4", raw_user(4), items), abs=1e-5)
    assert len(cache) == 2 + 4


async def test_an_item_written_is_scored_anew_by_the_next_request(
    ranker: Ranker, features: MemoryFeatureStore, versions: list[Artifact]
) -> None:
    await ask(ranker, RankRequest("4", IDS))
    changed = raw_item(3) | {"year": 1931, "genres": ["Film-Noir"]}
    features.put_item("3", changed)
    expected_scores = expected(versions[0], "4", raw_user(4), {"3": changed, "5": raw_item(5)})
    assert scores(await ask(ranker, RankRequest("4", ["3", "5"]))) == pytest.approx(expected_scores, abs=1e-5)


async def test_an_item_that_appears_is_no_longer_missing(ranker: Ranker, features: MemoryFeatureStore) -> None:
    assert (await ask(ranker, RankRequest("4", ["late"]))).missing_items == ["late"]
    features.put_item("late", raw_item(1))
    assert (await ask(ranker, RankRequest("4", ["late"]))).missing_items == []


async def test_what_the_request_brings_goes_over_what_is_stored(ranker: Ranker, versions: list[Artifact]) -> None:
    context = raw_context(8)
    ranking = await ask(
        ranker,
        RankRequest(
            "4",
            ["1", "2", "new"],
            context=context,
            user_features={"age": 71},
            item_features={"2": {"year": 1930}, "new": {"year": 2001}},
        ),
    )
    items = {"1": raw_item(1), "2": raw_item(2) | {"year": 1930}, "new": {"year": 2001}}
    expected_scores = expected(versions[0], "4", raw_user(4) | {"age": 71} | context, items)
    assert scores(ranking) == pytest.approx(expected_scores, abs=1e-5)
    again = await ask(ranker, RankRequest("4", ["2"]))
    assert scores(again) == pytest.approx(expected(versions[0], "4", raw_user(4), {"2": raw_item(2)}), abs=1e-5), (
        "an override is for one request"
    )


async def test_overrides_for_items_that_are_not_candidates_are_ignored_and_named(ranker: Ranker) -> None:
    plain = await ask(ranker, RankRequest("4", ["1"]))
    ranking = await ask(ranker, RankRequest("4", ["1"], item_features={"99": {"year": 1}}))
    assert scores(ranking) == scores(plain)
    assert ranking.ignored == ["item_features.99"]


async def test_names_that_no_field_reads_are_ignored_and_named(ranker: Ranker) -> None:
    plain = await ask(ranker, RankRequest("4", ["1", "2"]))
    assert list(plain.ignored) == []
    request = RankRequest(
        "4",
        ["1", "2"],
        context={"huor": 21, "year": 1990},
        user_features={"agee": 30, "user_id": "5"},
        item_features={"1": {"genrs": ["Drama"]}, "2": {"item_id": "3"}},
    )
    ranking = await ask(ranker, request)
    assert scores(ranking) == pytest.approx(scores(plain), abs=1e-6)
    assert ranking.ignored == [
        "context.huor",
        "context.year",
        "user_features.agee",
        "user_features.user_id",
        "item_features.1.genrs",
        "item_features.2.item_id",
    ]
    known = {"context": {"hour": 3, "age": 20}, "user_features": {"session_length": None}}
    assert (await ask(ranker, RankRequest("4", ["1"], **known))).ignored == [], (
        "both name the fields of the user's side"
    )
    many = await ask(ranker, RankRequest("4", ["1"], context={f"{'x' * 250}{n}": n for n in range(1000)}))
    assert len(many.ignored) == 20
    assert max(map(len, many.ignored)) == 120


async def test_a_guest_is_scored_as_training_saw_a_missing_user(
    ranker: Ranker, features: MemoryFeatureStore, versions: list[Artifact]
) -> None:
    features.put_user("", raw_user(4))
    features.put_user("None", raw_user(4))
    items = {"1": raw_item(1), "3": raw_item(3)}
    for cached in (False, True):
        ranking = await ask(ranker, RankRequest(None, ["1", "3"]))
        assert ranking.missing_user
        assert (ranking.degraded, ranking.missing_items) == ([], []), cached
        assert scores(ranking) == pytest.approx(expected(versions[0], None, {}, items), abs=1e-5)
    told = await ask(ranker, RankRequest(None, ["1", "3"], user_features={"age": 30}, context={"hour": 2}))
    assert scores(told) == pytest.approx(expected(versions[0], None, {"age": 30, "hour": 2}, items), abs=1e-5)
    features.failing = True
    ranking = await ask(ranker, RankRequest(None, ["1", "3"]))
    assert ranking.missing_user
    assert ranking.degraded == [STALE_ITEMS], "no user was looked for"


async def test_a_value_sent_that_no_slot_can_hold_is_the_clients_error(ranker: Ranker) -> None:
    long = "7" * 90
    for request, place in (
        (RankRequest("4", ["1"], user_features={"age": "old"}), "user_features.age"),
        (RankRequest("4", ["1"], context={"session_length": [1]}), "context.session_length"),
        (RankRequest("4", ["1"], user_features={"age": 3}, context={"age": "old"}), "context.age"),
        (RankRequest("4", ["1"], item_features={"1": {"year": {"a": 1.0}}}), "item_features.1.year"),
        (
            RankRequest("4", ["1", "2"], item_features={"1": {"popularity": 1}, "2": {"popularity": "many"}}),
            "item_features.2.popularity",
        ),
        (RankRequest("4", [long], item_features={long: {"rating": "good"}}), f"item_features.{'7' * 39}….rating"),
    ):
        with pytest.raises(EncodingError) as refused:
            await ask(ranker, request)
        assert [where for where, _ in refused.value.errors] == [place]
    assert (await ask(ranker, RankRequest("4", ["1"]))).degraded == []


async def test_a_stored_value_that_no_slot_can_hold_degrades_the_answer(
    ranker: Ranker, features: MemoryFeatureStore, versions: list[Artifact]
) -> None:
    features.put_user("4", raw_user(4) | {"liked_genres": "[not JSON"})
    ranking = await ask(ranker, RankRequest("4", ["1"]))
    assert ranking.degraded == [INVALID_FEATURES]
    user = {name: value for name, value in raw_user(4).items() if name != "liked_genres"}
    assert scores(ranking) == pytest.approx(expected(versions[0], "4", user, {"1": raw_item(1)}), abs=1e-5)


async def test_without_the_store_cached_items_are_stale_and_the_user_is_a_default(
    ranker: Ranker, features: MemoryFeatureStore, versions: list[Artifact]
) -> None:
    await ask(ranker, RankRequest("4", IDS[:5]))
    features.failing = True
    ranking = await ask(ranker, RankRequest("4", [*IDS[:5], "40"]))
    assert set(ranking.degraded) == {USER_UNAVAILABLE, STALE_ITEMS, ITEMS_UNAVAILABLE}
    assert not ranking.missing_user, "nobody knows whether the user exists"
    assert ranking.missing_items == []
    items = {i: raw_item(int(i)) for i in IDS[:5]} | {"40": {}}
    assert scores(ranking) == pytest.approx(expected(versions[0], "4", {}, items), abs=1e-5)
    features.failing = False
    recovered = await ask(ranker, RankRequest("4", [*IDS[:5], "40"]))
    assert recovered.degraded == []
    expected_scores = expected(versions[0], "4", raw_user(4), {i: raw_item(int(i)) for i in [*IDS[:5], "40"]})
    assert scores(recovered) == pytest.approx(expected_scores, abs=1e-5)


async def test_more_items_than_the_cache_holds(versions: list[Artifact]) -> None:
    cache = ItemCache(capacity=16)
    store = MemoryFeatureStore({"4": raw_user(4)}, raw_items(60))
    await store.start(cache)
    await cache.attach(versions[0])
    ranker = Ranker(store, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=1.0)
    for start in (0, 8, 30, 0, 44):
        ids = [str(number) for number in range(start, start + 8)]
        ranking = await ask(ranker, RankRequest("4", ids))
        expected_scores = expected(versions[0], "4", raw_user(4), {i: raw_item(int(i)) for i in ids})
        assert scores(ranking) == pytest.approx(expected_scores, abs=1e-5)
        assert len(cache) <= 16


async def test_scores_that_are_not_finite_rank_last_and_are_named(
    ranker: Ranker, cache: ItemCache, versions: list[Artifact]
) -> None:
    await ask(ranker, RankRequest("4", ["1", "2", "3"]))
    cache.states(versions[0])[int(cache.find(["2"]).rows[0])] = torch.nan
    ranking = await ask(ranker, RankRequest("4", ["1", "2", "3"]))
    assert ranking.degraded == [NOT_FINITE]
    assert ranking.item_ids[-1] == "2"
    assert ranking.scores[-1] == 0.0
    assert all(0 <= score <= 1 for score in ranking.scores)


async def test_a_swap_changes_the_scores_to_the_new_versions(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    for artifact in (versions[0], versions[1], versions[0]):
        live[0] = LiveSnapshot(stable=artifact)
        ranking = await ask(ranker, RankRequest("4", IDS))
        assert ranking.artifact is artifact
        expected_scores = expected(artifact, "4", raw_user(4), {i: raw_item(int(i)) for i in IDS})
        assert scores(ranking) == pytest.approx(expected_scores, abs=1e-5)


async def test_labels_and_versions_can_be_pinned(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = LiveSnapshot(stable=versions[0], canary=versions[1], canary_share=0.0, shadow=versions[2])
    for choice, artifact in (("canary", versions[1]), (versions[2].version, versions[2]), ("stable", versions[0])):
        assert (await ask(ranker, RankRequest("4", ["1"], model=choice))).artifact is artifact
    for unknown in ("champion", 99, "99", "１"):
        with pytest.raises(InvalidRequest, match=r"live are stable \(version \d\), canary \(version \d\), shadow"):
            await ask(ranker, RankRequest("4", ["1"], model=unknown))


async def test_the_last_good_version_answers_with_a_word_about_it(
    ranker: Ranker, live: list[LiveSnapshot], versions: list[Artifact]
) -> None:
    live[0] = replace(live[0], fallback=True)
    assert (await ask(ranker, RankRequest("4", ["1"]))).degraded == [MODEL_FALLBACK]


async def test_no_model_and_no_time_are_errors(ranker: Ranker, live: list[LiveSnapshot]) -> None:
    with pytest.raises(DeadlinePassed):
        await ask(ranker, RankRequest("4", ["1"]), seconds=0.0)
    live[0] = LiveSnapshot()
    with pytest.raises(NoModel):
        await ask(ranker, RankRequest("4", ["1"]))


async def test_an_explanation_names_the_fields_that_moved_the_score(ranker: Ranker, versions: list[Artifact]) -> None:
    ranking = await ask(ranker, RankRequest("4", ["1", "5"], explain=True, context=raw_context(3)))
    assert len(ranking.explanations) == 2
    effects = effects_of(ranking.explanations[0])
    best = ranking.item_ids[0]
    without_year = {name: value for name, value in raw_item(int(best)).items() if name != "rating"}
    user = raw_user(4) | raw_context(3)
    logit = torch.logit(
        torch.tensor(list(expected(versions[0], "4", user, {best: raw_item(int(best))}).values())).double()
    )
    ablated = torch.logit(torch.tensor(list(expected(versions[0], "4", user, {best: without_year}).values())).double())
    assert effects["rating"] == pytest.approx(float(logit - ablated), abs=1e-3)
    assert "user_id" in effects
    assert "hour" in effects
    assert "age" in effects, "what the store has, of which two fields are made"
    assert "age_group" not in effects
    assert {("first", ("age",), None), ("first", ("age_group",), None)} <= parts_of(ranking.explanations[0]).keys()
    strengths = list(map(abs, effects.values()))
    assert strengths == sorted(strengths, reverse=True)
    scale, offset = versions[0].program.calibration_2.tolist()
    for score, explanation in zip(ranking.scores.tolist(), ranking.explanations, strict=True):
        assert explanation.calibration == LogitCalibration(scale, offset)
        assert sum(parts_of(explanation).values()) == pytest.approx(explanation.logit, abs=MAX_ERROR)
        assert 1 / (1 + math.exp(-scale * explanation.logit - offset)) == pytest.approx(score, abs=1e-5)


async def test_a_request_that_does_not_ask_is_not_explained(ranker: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Explainer, "__init__", lambda *_: pytest.fail("it was explained"))
    ranking = await ask(ranker, RankRequest("4", IDS, item_features={"1": {"year": 1990}}))
    assert ranking.explanations == ()


async def test_a_logit_that_is_not_finite_is_not_explained(ranker: Ranker, versions: list[Artifact]) -> None:
    values = {"rating": 3e38, "popularity": 3e38}
    ranking = await ask(ranker, RankRequest("4", ["1", "2"], explain=True, item_features={"1": values}))
    assert ranking.item_ids == ["2", "1"]
    finite, infinite = ranking.explanations
    assert parts_of(finite)
    assert (infinite.logit, infinite.effects) == (None, [])
    assert infinite.no_parts == "the logit is not finite"


async def test_bfloat16_states_move_scores_little_and_tie_none(
    features: MemoryFeatureStore, versions: list[Artifact]
) -> None:
    cache = ItemCache(capacity=256, dtype=torch.bfloat16)
    await features.start(cache)
    await cache.attach(versions[0])
    ranking = await ask(
        Ranker(features, cache, lambda: LiveSnapshot(stable=versions[0]), store_timeout_s=1.0), RankRequest("4", IDS)
    )
    expected_scores = expected(versions[0], "4", raw_user(4), {i: raw_item(int(i)) for i in IDS})
    assert scores(ranking) == pytest.approx(expected_scores, abs=0.02)
    assert scores(ranking) != pytest.approx(expected_scores, abs=1e-6), "it did compute in bfloat16"
    assert len(set(ranking.scores.tolist())) == len(IDS)
