"""What the models' options change, each against its formula, and what they promise on schemas of any shape."""

from __future__ import annotations

import copy
import inspect
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import ConfigError
from app.features.encoder import Encoder
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import Slots
from app.models import MODELS, VARIANTS, build, options_of
from app.models.base import CtrModel
from app.models.deepfm import DeepFM
from app.models.deepfm_variants import DeepFMVariant
from app.models.layers import Block
from app.models.preprocessing import Preprocessing
from app.models.serving_form import ServedDeepFM, serving_form
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from app.registry.artifact.manifest import GoldenRequest
from tests.factories import fitted, raw_context, raw_item, raw_user, small_schema, tiny_model
from tests.models import reference
from tests.models.reference import Example, Vector

CHOSEN = [
    ("liked_genres", "genres"),
    ("item_id", "user_id"),
    ("gender", "age:bucket"),
    ("year", "tags"),
    ("hour", "tags"),
]
DIMS = {"gender": 1, "age:bucket": 2, "genres": 5, "year": 3, "item_id": 8}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("fm", {"crosses": CHOSEN}),
    ("fm", {"crosses": [("gender", "hour")]}),
    ("hofm", {"order": 2}),
    ("hofm", {"order": 4}),
    ("deepfm", {"crosses": CHOSEN, "hidden": (16,)}),
    ("deepfm", {"element_wise": True, "hidden": (16, 8)}),
    ("deepfm", {"element_wise": True, "crosses": CHOSEN, "hidden": (16, 8)}),
    ("nfm", {"crosses": CHOSEN, "hidden": (16,)}),
    ("fm", {"dims": DIMS}),
    ("deepfm", {"dims": DIMS, "hidden": (16,)}),
    ("deepfm", {"dims": {"item_id": 3}, "element_wise": True, "crosses": CHOSEN, "hidden": (16,)}),
    ("nfm", {"dims": {"gender": 1, "age:bucket": 2}, "hidden": (16,)}),
    ("neural_cf", {"ids_only": False, "hidden": (16,)}),
    ("neural_cf_towers", {"ids_only": True, "hidden": (16,)}),
    ("deepfm_sparrow", {"movie": "tags", "user": "gender", "hidden": (16,)}),
    ("deepfm_sparrow_v2", {"user_genre": "age_group", "projection": 12, "hidden": (16,)}),
    ("dcn", {"stacked": True, "cross_layers": 3, "hidden": (16,)}),
    ("dcn", {"cross_layers": 1, "hidden": (16,)}),
    ("finalmlp", {"heads": 1, "hidden": (16, 9)}),
    ("finalmlp", {"heads": 6, "hidden": (16, 9)}),
]
SHAPES = {
    "no numbers": """\
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: liked_genres, entity: user, type: multi_categorical, space: genre, weighted: true, max_length: 4}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: genres, entity: item, type: multi_categorical, space: genre, max_length: 3}
""",
    "no user fields besides context": """\
fields:
  - {name: hour, entity: context, type: categorical}
  - {name: session_length, entity: context, type: numeric, buckets: 3}
  - {name: genres, entity: item, type: multi_categorical, max_length: 3}
  - {name: year, entity: item, type: numeric, buckets: 3}
""",
    "numbers alone on one side": """\
fields:
  - {name: age, entity: user, type: numeric, transforms: [sqrt, standardise]}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: tags, entity: item, type: multi_categorical, weighted: true, pooling: sum, max_length: 3}
""",
    "one field a side": """\
fields:
  - {name: gender, entity: user, type: categorical}
  - {name: item_id, entity: item, type: categorical}
""",
}
EXPORTED = ["no numbers", pytest.param("numbers alone on one side", marks=pytest.mark.faults)]
"""The shapes whose code differs. Compiling takes most of the time, so one of them, and one option of each model, are
exported by `make test`, and all by `make test-faults`."""
EXPORTED_OPTIONS = [
    pytest.param(name, options, marks=[pytest.mark.faults] if name in {before for before, _ in OPTIONS[:place]} else [])
    for place, (name, options) in enumerate(OPTIONS)
]


def randomised(name: str, preprocessing: Preprocessing, **options: Any) -> CtrModel:
    """Build a model in evaluation mode with no weight or statistic at its initial value, as `tiny_model` does."""
    model = build(name, preprocessing, **options)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(0.2 + torch.rand(module.running_var.shape, generator=generator))
    return model.eval()


def slots(schema: FeatureSchema, users: int = 4, items: int = 11) -> tuple[Slots, Slots]:
    """Encode users and items that were seen in training, except for the last of each."""
    user_numbers, item_numbers = [*range(users - 1), 777], [*range(items - 1), 888]
    raw_users = [raw_user(n) | raw_context(n) for n in user_numbers]
    return (
        Encoder(schema, "user").encode_many(raw_users, [str(n) for n in user_numbers]),
        Encoder(schema, "item").encode_many([raw_item(n) for n in item_numbers], [str(n) for n in item_numbers]),
    )


def both_ways(model: CtrModel, user: Slots, item: Slots, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute logits [users, items] by `forward`, as trained, and by the split, as served."""
    users, items = len(user.keys), len(item.keys)
    u, i = torch.arange(users).repeat_interleave(items), torch.arange(items).repeat(users)
    user_keys, user_values = torch.from_numpy(user.keys), torch.from_numpy(user.values).to(dtype)
    item_keys, item_values = torch.from_numpy(item.keys), torch.from_numpy(item.values).to(dtype)
    plain, served = copy.deepcopy(model).to(dtype), copy.deepcopy(model).to(dtype)
    for module in served.modules():
        if isinstance(module, Block):
            module.fuse()
    with torch.inference_mode():
        plain_UN = plain(user_keys[u], user_values[u], item_keys[i], item_values[i]).reshape(users, items)
        states_UD, states_ND = served.encode_user(user_keys, user_values), served.encode_items(item_keys, item_values)
        return plain_UN, torch.stack([served.score(state_D, states_ND) for state_D in states_UD])


def assert_split(model: CtrModel, user: Slots, item: Slots) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        plain_UN, split_UN = both_ways(model, user, item, dtype)
        assert plain_UN.shape == split_UN.shape
        scale = max(1.0, float(plain_UN.abs().max()))
        assert float((plain_UN - split_UN).abs().max()) <= tolerance * scale


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: str(value))
def test_every_option_splits(name: str, options: dict[str, Any]) -> None:
    model = randomised(name, fitted(), **options)
    user, item = slots(small_schema())
    assert_split(model, user, item)
    plain_UN, _ = both_ways(model, user, item, torch.float64)
    if options != {"crosses": [("gender", "hour")]}:
        assert float(plain_UN[:, :-1].std(1).mean()) > 1e-3, "items must differ for the split to be seen"


@pytest.mark.parametrize(("name", "options"), EXPORTED_OPTIONS, ids=lambda value: str(value))
def test_every_option_exports(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """Reading it back replays the golden requests by `forward` and by the split."""
    golden = [GoldenRequest("3", raw_user(3) | raw_context(3), ["1", "2"], [raw_item(1), raw_item(2)], [])]
    write(tmp_path, randomised(name, fitted(), **options), small_schema(), name=name, golden=golden)
    load(tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_schemas_of_any_shape_split(name: str, shape: str) -> None:
    schema = parse_schema(SHAPES[shape])
    user, item = slots(schema)
    assert_split(randomised(name, fitted(schema)), user, item)


@pytest.mark.parametrize("shape", EXPORTED)
@pytest.mark.parametrize("name", MODELS)
def test_schemas_of_any_shape_export(tmp_path: Path, name: str, shape: str) -> None:
    schema = parse_schema(SHAPES[shape])
    model = randomised(name, fitted(schema))
    ids = [str(n) for n in range(3)]
    golden = [GoldenRequest("1", raw_user(1) | raw_context(1), ids, [raw_item(n) for n in range(3)], [])]
    write(tmp_path, model, schema, name=name, golden=golden)
    load(tmp_path)


def weights_of(model: CtrModel) -> dict[str, Vector]:
    return {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}


def examples(preprocessing: Preprocessing) -> tuple[Slots, Slots, list[list[Example]]]:
    user, item = slots(small_schema())
    rows = [
        [
            Example(preprocessing, Slots(user.keys[u], user.values[u]), Slots(item.keys[i], item.values[i]))
            for i in range(len(item.keys))
        ]
        for u in range(len(user.keys))
    ]
    return user, item, rows


def chosen_pooled(example: Example, weights: dict[str, Vector]) -> Vector:
    pairs = [reference.named(example, weights, *pair) for pair in CHOSEN]
    return np.sum([e_f * e_g for e_f, e_g in pairs], 0)


def fm_chosen(example: Example, weights: dict[str, Vector]) -> float:
    return reference.first_order(example, weights) + float(chosen_pooled(example, weights).sum())


def fourth_order(example: Example, weights: dict[str, Vector]) -> float:
    table = weights["table_RE"][:, 1:]
    vectors = [reference.vector(field, table) for field in example.fields["user"] + example.fields["item"]]
    crosses = sum(float(np.prod(chosen, 0).sum()) for order in (2, 3, 4) for chosen in combinations(vectors, order))
    return reference.first_order(example, weights) + crosses


def deepfm_element_wise(example: Example, weights: dict[str, Vector]) -> float:
    pooled = chosen_pooled(example, weights)
    x = np.concatenate([reference.inputs(example, weights), pooled])
    return fm_chosen(example, weights) + float(reference.network(weights, "deep", x)[0])


def sized(example: Example, weights: dict[str, Vector]) -> tuple[list[Vector], list[Vector]]:
    """Return embeddings cut to their sizes, user side first, and their projections, which are crossed."""
    table = weights["table_RE"][:, 1:]
    names = list(small_schema().vectors)
    fields = example.fields["user"] + example.fields["item"]
    cut = [reference.vector(f, table)[: DIMS.get(name, 8)] for name, f in zip(names, fields, strict=True)]
    projections = iter(weights["crosses.weight_JKK"])
    common = [e_f if len(e_f) == 8 else e_f @ next(projections)[: len(e_f)] for e_f in cut]
    return cut, common


def fm_sized(example: Example, weights: dict[str, Vector]) -> float:
    _, common = sized(example, weights)
    return reference.first_order(example, weights) + sum(float(a @ b) for a, b in combinations(common, 2))


def deepfm_sized(example: Example, weights: dict[str, Vector]) -> float:
    """Compute the network by the columns of its first layer that the embeddings reach."""
    cut, _ = sized(example, weights)
    inputs, split = [], len(example.fields["user"])
    for side, embeddings in (("user", cut[:split]), ("item", cut[split:])):
        inputs += [np.pad(e_f, (0, 8 - len(e_f))) for e_f in embeddings]
        inputs.append(np.array(example.numbers[side]))
    x = np.concatenate(inputs)
    return fm_sized(example, weights) + float(reference.network(weights, "deep", x)[0])


def dcn_stacked(example: Example, weights: dict[str, Vector]) -> float:
    x_0 = x = reference.inputs(example, weights)
    for layer in ("first", "later.0", "later.1"):
        x = x_0 * (weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"]) + x
    return reference.bias(example, weights) + float(reference.network(weights, "deep", x)[0])


def ncf_all_fields(example: Example, weights: dict[str, Vector]) -> float:
    return reference.bias(example, weights) + reference.deep(example, weights)


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("fm", {"crosses": CHOSEN}, fm_chosen),
        ("fm", {"dims": DIMS}, fm_sized),
        ("deepfm", {"dims": DIMS, "hidden": (16,)}, deepfm_sized),
        ("hofm", {"order": 4}, fourth_order),
        ("deepfm", {"crosses": CHOSEN, "element_wise": True, "hidden": (16, 8)}, deepfm_element_wise),
        ("dcn", {"stacked": True, "cross_layers": 3, "hidden": (16,)}, dcn_stacked),
        ("neural_cf", {"ids_only": False, "hidden": (16,)}, ncf_all_fields),
    ],
)
def test_options_by_their_formula(name: str, options: dict[str, Any], formula: Any) -> None:
    preprocessing = fitted()
    model = randomised(name, preprocessing, **options)
    user, item, rows = examples(preprocessing)
    actual_UN, _ = both_ways(model, user, item, torch.float64)
    weights = weights_of(model)
    expected_UN = [[formula(example, weights) for example in row] for row in rows]
    assert actual_UN.numpy() == pytest.approx(np.array(expected_UN), rel=1e-10, abs=1e-10)


def test_weights_of_the_four_crosses_are_learned() -> None:
    model = tiny_model(0, "deepfm_sparrow")
    user, item = (tuple(map(torch.from_numpy, side)) for side in slots(small_schema(), 4, 4))
    model(*user, *item).sum().backward()
    gradient = model.get_parameter("crosses.weight_P").grad
    assert gradient is not None
    assert bool((gradient != 0).all())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_takes_its_options_and_refuses_others(name: str) -> None:
    kind, options = VARIANTS.get(name, MODELS[name]), options_of(name)
    assert options.items() >= MODELS[name].options().items()
    assert list(options) == list(inspect.signature(kind).parameters)[1:]
    assert ("dim" in options) == (name != "lr")
    torch.manual_seed(0)
    model = build(name, fitted(), **options)
    torch.manual_seed(0)
    assert all(map(torch.equal, model.state_dict().values(), MODELS[name](fitted()).state_dict().values()))
    with pytest.raises(ConfigError, match=rf"{name} has no depth; it takes "):
        build(name, fitted(), depth=3, **options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, DeepFM),
        ({"dim": 4, "hidden": (8,), "crosses": None, "element_wise": False, "dims": None}, DeepFM),
        ({"element_wise": True}, DeepFMVariant),
        ({"dims": {"age": 3}}, DeepFMVariant),
        ({"crosses": [("gender", "hour")], "dim": 4}, DeepFMVariant),
    ],
)
def test_only_options_beyond_the_paper_make_a_variant(options: dict[str, Any], kind: type[CtrModel]) -> None:
    model = build("deepfm", fitted(), **options)
    assert type(model) is kind
    assert model.name == "deepfm"
    assert type(serving_form(model)) is (ServedDeepFM if kind is DeepFM else kind)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("resnet", {}, "unknown; choose one of deepfm, lr"),
        ("fm", {"hidden": (8,)}, "fm has no hidden; it takes dim, crosses, dims"),
        ("fm", {"dims": {"film": 2}}, "no field 'film'"),
        ("nfm", {"dims": {"age": 0}}, "dims: age has 0; a size is from 1 to 8"),
        ("deepfm", {"dims": {"age": 3, "gender": 9}}, "dims: gender has 9; a size is from 1 to 8"),
        ("lr", {"dim": 8}, "lr has no dim; it takes no options"),
        ("fm", {"crosses": [("age", "film")]}, "no field 'film' to cross; the schema has user_id, gender"),
        ("fm", {"crosses": [("age", "age")]}, "with itself"),
        ("fm", {"crosses": []}, "at least one pair"),
        ("hofm", {"order": 1}, "begin at order 2"),
        ("dcn", {"cross_layers": 0}, "at least one"),
        ("deepfm_sparrow", {"movie": "user_id"}, "'user_id' is no item field; the schema has genres, item_id"),
        ("deepfm_sparrow_v2", {"user_genre": "genre"}, "'genre' is no user field"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build(name, fitted(), **options)
