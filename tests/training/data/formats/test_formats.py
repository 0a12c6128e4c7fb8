"""Criteo, Avazu, libsvm, libffm and JSON lines, in their real layouts, from file to trained version."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.errors import ConfigError, DataError
from app.features.encoder import Encoder
from app.registry.artifact.load import load
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.encoding_limits import EncodingLimits
from app.training.preprocessing.encode import encode
from tests.command_line import Ctr
from tests.training.data.large import LARGE, use_limits

SMALL = ("--model", "lr", "--epochs", "1", "--batch-size", "64", "--json")
AVAZU = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
)


def criteo_text(rows: int = 300) -> str:
    rng = random.Random(5)
    lines = []
    for _ in range(rows):
        numbers = ["" if rng.random() < 0.3 else str(rng.randint(-2, 500)) for _ in range(13)]
        categories = ["" if rng.random() < 0.1 else f"{rng.randint(0, 9) * 2654435761 % 2**32:08x}" for _ in range(26)]
        lines.append("\t".join([str(rng.randint(0, 1)), *numbers, *categories]))
    return "\n".join(lines) + "\n"


def avazu_text(rows: int = 300) -> str:
    rng = random.Random(6)
    lines = [AVAZU]
    for n in range(rows):
        day, hour = 21 + n * 10 // rows, rng.randint(0, 23)
        site = [f"{rng.randint(0, 4):08x}" for _ in range(6)]
        device = [f"d{rng.randint(0, 30):07x}", f"{n:08x}", f"{rng.randint(0, 9):08x}", "1", "0"]
        banner = [str(15700 + rng.randint(0, 20)), "320", "50", "1722", "0", "35", "-1", "79"]
        lines.append(
            ",".join([str(10**19 + n), str(n % 3 // 2), f"1410{day}{hour:02}", "1005", "0", *site, *device, *banner])
        )
    return "\n".join(lines) + "\n"


def libffm_text(rows: int = 300) -> str:
    rng = random.Random(7)
    lines = []
    for n in range(rows):
        tokens = [f"0:{rng.randint(0, 9)}:1", f"1:{20 + rng.randint(0, 9)}:{rng.random():.4f}"]
        tokens += [f"2:{40 + index}:0.5" for index in range(rng.randint(0, 3))]
        lines.append(f"{n % 2} " + " ".join(tokens))
    return "\n".join(lines) + "\n"


def libsvm_text(rows: int = 300) -> str:
    rng = random.Random(8)
    lines = []
    for n in range(rows):
        indices = sorted(rng.sample(range(1, 60), rng.randint(1, 6)))
        lines.append(
            f"{'+1' if n % 2 else '-1'} " + " ".join(f"{i}:{rng.uniform(-1, 1):.3f}" for i in indices) + "  # x"
        )
    return "\n".join(lines) + "\n"


TEXTS = {"criteo": criteo_text, "avazu": avazu_text, "libffm": libffm_text, "libsvm": libsvm_text}
NAMES = {"criteo": "day_0.tsv", "avazu": "train.csv", "libffm": "train.ffm", "libsvm": "a9a"}


def written(folder: Path, name: str, packed: bool = False) -> Path:
    path = folder / (NAMES[name] + (".gz" if packed else ""))
    text = TEXTS[name]().encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return path


@pytest.mark.parametrize(("memory", "packed"), [("frames", False), ("mapped", True)], ids=["frames", "mapped-gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_from_file_to_trained_version(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_ctr: Ctr,
    name: str,
    packed: bool,
    memory: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if memory == "mapped":
        use_limits(monkeypatch, LARGE)
    path = written(tmp_path, name, packed)
    status, out, err = run_ctr("train", "--dataset", name, "--data", str(path), *SMALL)
    assert status == 0, err
    version = load(Path(json.loads(out)["version_dir"]))
    assert version.manifest.golden, "replayed on every load"
    assert (tmp_path / "runs" / "encoded").exists() == (memory == "mapped")


@pytest.mark.parametrize("name", TEXTS)
def test_frames_and_the_mapped_form_are_the_same_slots(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    frames = open_dataset(name, path)
    mapped = open_dataset(name, path, cache=tmp_path / "cache", limits=replace(LARGE, block_bytes=1000))
    assert len(frames) == len(mapped) == 300
    one, other = encode(frames), encode(mapped)
    for left, right in zip(
        (*one.user, *one.item, one.labels_N), (*other.user, *other.item, other.labels_N), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def raw_rows(data: Dataset, side: str) -> list[dict[str, object]]:
    return (data.user if side == "user" else data.item).to_dicts()


def test_criteo_has_forty_columns_and_empty_ones_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "day_0.tsv"
    path.write_text("0\t1\t-2\t\t" + "\t".join(["7"] * 10 + ["68fd1e64"] * 26) + "\n1" + "\t" * 39 + "\n")
    data = open_dataset("criteo", path)
    assert data.labels_N.tolist() == [0.0, 1.0]
    assert list(raw_rows(data, "user")[0].values())[:4] == ["1", "-2", None, "7"]
    assert set(raw_rows(data, "item")[1].values()) == {None}
    path.write_text(path.read_text() + "0\t1\t2\n" * 3)
    with pytest.raises(DataError, match=r"3 bad rows.*have not 40 columns.*rows 3, 4, 5"):
        open_dataset("criteo", path)


def test_avazu_hours_are_times_and_fields_of_the_request(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    text = avazu_text(4).splitlines()
    hours = ["14102100", "14102223", "14102712", "2014102712"]
    lines = [
        ",".join([*line.split(",")[:2], hour, *line.split(",")[3:]]) for line, hour in zip(text[1:], hours, strict=True)
    ]
    path.write_text("\n".join([text[0], *lines]))
    data = open_dataset("avazu", path)
    assert data.timestamps_N is not None
    assert data.timestamps_N.tolist() == [1413849600, 1414018800, 1414411200]
    assert [(row["hour_of_day"], row["weekday"]) for row in raw_rows(data, "user")] == [(0, 2), (23, 3), (12, 1)]
    assert (data.skipped.count, data.skipped.first_rows) == (1, (4,))
    assert not {"id", "click", "hour"} & {field.raw_name for field in data.schema.fields}
    path.write_text("id,click\n1,0\n")
    with pytest.raises(DataError, match="Avazu"):
        open_dataset("avazu", path)


@pytest.mark.parametrize("name", ["libffm", "libsvm"])
def test_an_index_is_a_category_and_its_value_the_weight(tmp_path: Path, name: str) -> None:
    path = tmp_path / "train"
    path.write_text(
        {"libffm": "1 0:3:1 2:7:-0.5 2:9:2e-1\n0 0:4:1\n", "libsvm": "+1 3:1 7:-0.5\n-1 qid:4 3:0.25\n"}[name]
    )
    data = open_dataset(name, path)
    assert data.labels_N.tolist() == [1.0, 0.0]
    raws: list[dict[str, dict[str, float]]] = {
        "libffm": [{"f0": {"3": 1.0}, "f2": {"7": -0.5, "9": 0.2}}, {"f0": {"4": 1.0}}],
        "libsvm": [{"features": {"3": 1.0, "7": -0.5}}, {"features": {"3": 0.25}}],
    }[name]
    result = encode(data)
    for side in ("user", "item"):
        expected = Encoder(data.schema, side).encode_many(raws, [None, None])
        np.testing.assert_array_equal(result.side(side).keys, expected.keys)
        np.testing.assert_array_equal(result.side(side).values, expected.values)


def test_libffm_rows_that_are_not_are_named_by_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "train.ffm"
    path.write_text(libffm_text() + "1 0:1\n0 0:1:x\n1 1:2:3 1:2:4\nmaybe 0:1:1\n1 0:1:nan\n")
    with pytest.raises(
        DataError, match=r"3 have a token that is not field:index:value, 1 name an index twice, 1 label"
    ):
        open_dataset("libffm", path)
    data = open_dataset("libffm", path, max_bad=0.02)
    assert (len(data), data.skipped.count, data.skipped.first_rows) == (300, 5, (301, 302, 303, 304, 305))
    path.write_text("hello group\n")
    with pytest.raises(DataError, match="libffm"):
        open_dataset("libffm", path)


JSON_FEATURES = """\
fields:
  - {name: user, entity: user, type: categorical, id: true}
  - {name: taste, entity: user, type: multi_categorical, weighted: true, max_length: 3}
  - {name: item, entity: item, type: categorical, id: true}
  - {name: price, entity: item, type: numeric}
  - {name: tags, entity: item, type: multi_categorical, max_length: 3}
  - {name: mixed, entity: item, type: categorical}
"""


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_json_lines_encode_as_their_objects_do(tmp_path: Path, packed: bool) -> None:
    mixed = [1, "1", True, 2.5, None, "x", 1.0, 2**60]
    rows = [
        {"user": n % 7, "taste": {"a": 1.0 + n, "b": 2}, "item": f"i{n % 5}", "price": n / 3 if n % 4 else None,
         "tags": ["x", f"t{n % 3}"][: n % 3], "mixed": mixed[n % 8], "click": bool(n % 2)}
        for n in range(60)
    ]  # fmt: skip
    del rows[3]["taste"]
    text = "\n".join(json.dumps(row) for row in rows).encode() + b"\n[1]\n"
    path, features = tmp_path / ("rows.jsonl" + ".gz" * packed), tmp_path / "features.yaml"
    path.write_bytes(gzip.compress(text) if packed else text)
    features.write_text(JSON_FEATURES)
    # Small blocks, so that a column has another type in some of them.
    limits = EncodingLimits(block_bytes=200)
    data = open_dataset("table", path, features=features, label="click", limits=limits)
    assert (data.skipped.count, data.skipped.first_rows) == (1, (61,))
    result = encode(data)
    for side, id_name in (("user", "user"), ("item", "item")):
        expected = Encoder(data.schema, side).encode_many(rows, [str(row[id_name]) for row in rows])
        np.testing.assert_array_equal(result.side(side).keys, expected.keys)
        np.testing.assert_array_equal(result.side(side).values, expected.values)
    path.write_bytes(gzip.compress(b"[\n{}\n]\n") if packed else b"[\n{}\n]\n")
    with pytest.raises(DataError, match="one JSON array"):
        open_dataset("table", path, features=features, label="click", limits=limits)


def test_a_kind_of_file_that_is_not_known_says_which_are(tmp_path: Path) -> None:
    path, features = tmp_path / "rows.data", tmp_path / "features.yaml"
    path.write_text("x")
    features.write_text(JSON_FEATURES)
    with pytest.raises(ConfigError, match=r"\.csv, \.tsv, \.jsonl"):
        open_dataset("table", path, features=features)
