"""The Python client and a real service, and the examples of its README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ctr_client import CtrClient, Refused

from tests.e2e.conftest import Shared

README = (Path(__file__).parents[2] / "client" / "README.md").read_text()


def test_calls_of_a_real_service(shared: Shared) -> None:
    with CtrClient(shared.service.url, timeout_s=20) as client:
        ranking = client.rank("4", [1, 2, 3], context={"hour": 21}, explain=True, request_id="mine")
        assert ranking.request_id == "mine"
        assert {item.item_id for item in ranking.items} == {"1", "2", "3"}
        assert ranking.items[0].explanation
        assert client.health().status == "ok"
        assert [version.version for version in client.models()] == [1]
        with pytest.raises(Refused) as raised:
            client.rank("4", [])
        assert raised.value.problem == "invalid-request"
        assert raised.value.errors


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_examples_of_the_readme_run(example: str, shared: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    code = example.replace("http://127.0.0.1:8000", shared.service.url)
    code = code.replace("timeout_s=0.2", "timeout_s=20").replace("api_key=None", "api_key=None, timeout_s=20")
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})  # noqa: S102
    assert "50" in capsys.readouterr().out
