"""`ctr size`: the same figures for people, pipes and programs, and what to do about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import Ctr
from tests.pages import DOCS

MILLION = (
    "size",
    "--users",
    "1000000",
    "--items",
    "100000",
    "--fields",
    "300",
    "--model",
    "deepfm",
    "--embedding",
    "16",
)


def test_the_document_has_what_the_table_has(ctr: Ctr) -> None:
    status, out, _ = ctr(*MILLION, "--json")
    assert status == 0
    document = json.loads(out)
    users = document["store"]["users"]
    assert (users["count"], users["fields"], users["encoding"]) == (1_000_000, 300, "listpack")
    assert users["bytes"] == 1_000_000 * users["bytes_each"]
    assert document["store"]["bytes"] == users["bytes"] + document["store"]["items"]["bytes"]
    assert document["worker"]["state_width"] == 128 + 16 + 1, "deepfm: H + K + 1"
    assert document["machine"]["bytes"] > document["worker"]["items_bytes"] + document["tables_bytes"]
    wide = document["store_entries_64"]["users"]
    assert wide["encoding"] == "hashtable"
    assert wide["bytes"] > users["bytes"]
    assert wide["read_us"] < users["read_us"] / 5

    status, out, said = ctr(*MILLION)
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["what", "number", "bytes each", "memory"]
    assert lines[1] == [
        "store: users, 300 fields, listpack", "1,000,000", f"{users['bytes_each']:,}", f"{users['bytes'] / 1e9:.1f} GB",
    ]  # fmt: skip
    assert len({len(line) for line in lines}) == 1
    assert "hash-max-listpack-entries 64" in said
    page = " ".join((DOCS / "scaling.md").read_text().split())
    assert " ".join(["ctr", *MILLION]) in page
    assert f"{lines[1][3]} of the store as listpacks and {wide['bytes'] / 1e9:.1f} GB as tables" in page
    assert f"are {float(lines[2][3].split()[0]):.0f} MB there, and {lines[4][3]} in each worker" in page


def test_a_schema_says_how_many_fields_there_are(ctr: Ctr, tmp_path: Path) -> None:
    file = tmp_path / "features.yaml"
    file.write_text(
        "version: 1\nfields:\n"
        "  - {name: user_id, entity: user, type: categorical, id: true}\n"
        "  - {name: age, entity: user, type: numeric, buckets: 4}\n"
        "  - {name: hour, entity: context, type: categorical}\n"
        "  - {name: item_id, entity: item, type: categorical, id: true}\n"
        "  - {name: genres, entity: item, type: multi_categorical, max_length: 3}\n"
        "  - {name: year, entity: item, type: categorical}\n"
    )
    status, out, _ = ctr("size", "--users", "10", "--items", "20", "--features", str(file), "--json")
    assert status == 0
    store = json.loads(out)["store"]
    assert (store["users"]["fields"], store["items"]["fields"]) == (1, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--items", "2000000"), "CTR_ITEM_CACHE_SIZE=2000000 caches all items"),
        (("--items", "1", "--multi", "2", "--values", "20"), "A list of 20 values is longer than 64 bytes"),
        (("--items", "1", "--model", "lr"), "Measured with Valkey 9.1"),
    ],
)
def test_what_to_do_is_said(ctr: Ctr, options: tuple[str, ...], said: str) -> None:
    status, _, error = ctr("size", "--users", "1000", *options)
    assert status == 0, error
    assert said in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "resnet"), "--model resnet: unknown"),
        (("--fields", "900", "--item-fields", "900"), "a schema has at most 1,000 fields, both ids included"),
        (("--hidden", "wide"), "expected widths such as 128,64"),
        (("--hidden", "8", "--model", "fm"), "has no hidden"),
    ],
)
def test_what_cannot_be_reckoned_is_refused(ctr: Ctr, options: tuple[str, ...], said: str) -> None:
    status, out, error = ctr("size", "--users", "1", "--items", "1", *options)
    assert (status, out) == (1, "")
    assert said in error
