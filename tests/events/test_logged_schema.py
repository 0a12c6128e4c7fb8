"""The log's schemas name nobody."""

from __future__ import annotations

from pathlib import Path

import msgspec

from app.events.logged_schema import Entity, LoggedSchema, logged_schema
from app.registry.store.model_store import ModelStore
from tests.factories import MODEL_NAME, publish_tiny


def test_users_beside_a_schema_have_values_of_users_and_are_none_of_them(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, MODEL_NAME)
    manifest = store.manifest(publish_tiny(store, 0))
    content = logged_schema(manifest)
    logged = msgspec.json.decode(content, type=LoggedSchema)
    real = {request.user_id: request.user for request in manifest.golden}
    assert len(logged.users) == len(real) > 1
    assert not {user.id for user in logged.users} & real.keys()
    assert [user.features for user in logged.users] != list(real.values())
    for name in {name for user in real.values() for name in user}:
        values = sorted(str(user.features.get(name)) for user in logged.users)
        assert values == sorted(str(user.get(name)) for user in real.values()), name
    items = {
        one: item for request in manifest.golden for one, item in zip(request.item_ids, request.items, strict=True)
    }
    assert {item.id: item.features for item in logged.items} == items


def test_a_feature_that_reads_the_id_names_nobody_either(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, MODEL_NAME)
    manifest = store.manifest(publish_tiny(store, 0))
    named = [
        msgspec.structs.replace(request, user={**request.user, "user_id": request.user_id})
        for request in manifest.golden
    ]
    logged = msgspec.json.decode(logged_schema(msgspec.structs.replace(manifest, golden=named)), type=LoggedSchema)
    assert [user.features["user_id"] for user in logged.users] == [user.id for user in logged.users]


def test_a_user_who_is_alone_is_left_out(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, MODEL_NAME)
    manifest = store.manifest(publish_tiny(store, 0))
    alone = msgspec.structs.replace(manifest, golden=manifest.golden[:1])
    assert msgspec.json.decode(logged_schema(alone), type=LoggedSchema).users == [Entity("example-0", {})]
