"""How settings are read: trimmed, with their defaults for what is empty, and refused in one line without a secret."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.commands.unknown_settings import unknown_settings
from app.errors import ConfigError
from app.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without `.env`, and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("CTR_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", Settings.model_fields)
@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_setting_means_its_default(name: str, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(load_settings(), name)
    monkeypatch.setenv(f"CTR_{name.upper()}", empty)
    assert getattr(load_settings(), name) == default
    assert getattr(load_settings(**{name: empty}), name) == default, "of the command line"


def test_an_empty_variable_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("CTR_HOST=0.0.0.0\nCTR_PORT=9000\nCTR_MODEL=\n")
    monkeypatch.setenv("CTR_HOST", "")
    settings = load_settings()
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 9000, "deepfm")


@pytest.mark.parametrize("around", ["{}\n", " {} ", "{}\r\n", "\t{}"])
def test_what_is_around_a_value_does_not_belong_to_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ADMIN_KEY", "secret"), ("API_KEYS", "one, two"), ("HOST", "::1"), ("PORT", "9000")):
        monkeypatch.setenv(f"CTR_{name}", around.format(value))
    settings = load_settings()
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "secret"
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert (settings.host, settings.port) == ("::1", 9000)


@pytest.mark.parametrize("name", ["ADMIN_KEY", "API_KEYS"])
@pytest.mark.parametrize("inside", ["\n", "\r\n", "\x00", "\t", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_in_one_line_that_shows_none_of_it(
    name: str, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if inside == "\x00":
        values: dict[str, Any] = {name.lower(): f"hidden{inside}treasure"}
    else:
        monkeypatch.setenv(f"CTR_{name}", f"hidden{inside}treasure")
        values = {}
    with pytest.raises(ConfigError) as refused:
        load_settings(**values)
    assert str(refused.value).startswith(f"CTR_{name}: a line end or another control character")
    assert "\n" not in str(refused.value)
    assert not any(word in str(refused.value) for word in ("hidden", "treasure"))


@pytest.mark.parametrize("name", ["ADMIN_KEY", "API_KEYS"])
@pytest.mark.parametrize("quoted", ['"treasure"', "'treasure'\n", '""'])
def test_a_key_in_quotes_is_refused(name: str, quoted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --env-file` leaves quotes where they are, and no caller would send them."""
    monkeypatch.setenv(f"CTR_{name}", quoted)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert str(refused.value) == f"CTR_{name}: a key in quotes, which would be a part of it: leave them out"


def test_a_sub_path_and_origins_are_read_as_people_write_them() -> None:
    for written, read in (("ctr", "/ctr"), ("/ctr/", "/ctr"), ("/", ""), ("/a/b", "/a/b"), ("", "")):
        assert load_settings(root_path=written).root_path == read
    for path in ("https://x.example/ctr", "/ctr?a", "/a b", "/<b>"):
        with pytest.raises(ConfigError, match="CTR_ROOT_PATH: "):
            load_settings(root_path=path)
    assert load_settings(cors_origins="https://Shop.example/, *").cors_origins == ("https://shop.example", "*")
    for origins in ("shop.example", "https://shop.example/page", "https://*.shop.example", "null"):
        with pytest.raises(ConfigError, match="CTR_CORS_ORIGINS: "):
            load_settings(cors_origins=origins)
    assert load_settings(host="[::]").host == "::"


def test_a_command_warns_of_unknown_variables_when_it_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ctr", "models"])
    monkeypatch.setenv("CTR_MODEL_STROE", "elsewhere")
    with contextlib.suppress(SystemExit):
        main()
    noted = [line for line in capsys.readouterr().err.splitlines() if "note:" in line]
    assert noted == ["note: CTR_MODEL_STROE is no setting and is not read; did you mean CTR_MODEL_STORE?"]


def test_unknown_variables_are_named_with_the_nearest_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_settings() == []
    Path(".env").write_text("# CTR_NONE=1\nexport CTR_KEEPALIVE_S=5\nCTR_PORT=1\nOTHER=2\nCTR_RETRAIN_EVERY=1h\n")
    monkeypatch.setenv("CTR_REDIS_ULR", "redis://:secret@host")
    monkeypatch.setenv("CTR_COMPLETELY_ELSE", "1")
    monkeypatch.setenv("ctr_workers", "1")
    for name in (
        "CTR_SERVING_SERVICE_HOST",
        "CTR_SERVING_PORT",
        "CTR_SERVING_PORT_80_TCP_ADDR",
        "CTR_SERVICE_PORT_HTTP",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")  # what Kubernetes sets
    assert unknown_settings() == [
        "CTR_COMPLETELY_ELSE is no setting and is not read; docs/reference.md lists those that are",
        "CTR_KEEPALIVE_S is no setting and is not read; did you mean CTR_KEEP_ALIVE_S?",
        "CTR_REDIS_ULR is no setting and is not read; did you mean CTR_REDIS_URL?",
    ]


def test_metrics_for_keys_need_keys() -> None:
    with pytest.raises(ConfigError, match="CTR_METRICS: there are no CTR_API_KEYS"):
        load_settings(metrics="key")


def test_an_admin_port_needs_a_key_and_is_not_that_of_all() -> None:
    with pytest.raises(ConfigError, match="CTR_ADMIN_PORT: there is no CTR_ADMIN_KEY"):
        load_settings(admin_port=9001)
    with pytest.raises(ConfigError, match="CTR_ADMIN_PORT: it is CTR_PORT"):
        load_settings(admin_port=9001, port=9001, admin_key="key")
    assert load_settings(admin_port=9001, admin_key="key").admin_host == "127.0.0.1"


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_TRUSTED_PROXIES", "10.1.2.3, fd00::/8")
    assert [str(network) for network in load_settings().trusted_proxies] == ["10.1.2.3/32", "fd00::/8"]
    for wrong in ("proxy.example", "10.0.0.1/8"):
        monkeypatch.setenv("CTR_TRUSTED_PROXIES", wrong)
        with pytest.raises(ConfigError, match="CTR_TRUSTED_PROXIES: not an address or a network"):
            load_settings()


def test_a_list_of_nothing_is_no_list_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_FEEDBACK_TYPES", " , ")
    with pytest.raises(ConfigError, match="CTR_FEEDBACK_TYPES: nothing but commas; name one at least"):
        load_settings()


def test_policies_are_read_for_all_labels_or_each_and_refused_with_what_to_write() -> None:
    every = load_settings(explore="softmax:0.05").explore
    assert [(one.label, str(one.policy)) for one in every] == [("", "softmax:0.05")]
    each = load_settings(explore="stable=epsilon:0.02, canary = softmax:1").explore
    assert [(one.label, str(one.policy)) for one in each] == [("stable", "epsilon:0.02"), ("canary", "softmax:1")]
    for wrong, message in (
        ("softmax", "write softmax:0.05"),
        ("softmax:0", "with a temperature from 0.001 to 100"),
        ("softmax:nan", "write softmax:0.05"),
        ("epsilon:1.5", "a probability above 0 and up to 1"),
        ("greedy", "greedy explores nothing; leave it out"),
        ("shadow=softmax:1", "'shadow=softmax:1' names no label"),
        ("canary=softmax:1,softmax:2", "'softmax:2' names no label"),
        ("canary=softmax:1,canary=softmax:2", "a label has two policies"),
    ):
        with pytest.raises(ConfigError, match=rf"CTR_EXPLORE: .*{re.escape(message)}"):
            load_settings(explore=wrong)
