"""The answers to questions are backed: their snippets run, and the tests, files and sections that they name exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.pages import DOCS, ROOT, blocks, sections

FAQ = (DOCS / "faq.md").read_text()
ANSWERS = sections(FAQ, 2)


@pytest.mark.parametrize("snippet", blocks(FAQ, "python"), ids=range(len(blocks(FAQ, "python"))))
def test_a_snippet_runs_and_what_it_asserts_holds(snippet: str) -> None:
    assert "assert " in snippet
    exec(compile(snippet, "faq.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_says_what_shows_it(question: str) -> None:
    assert question.endswith("?")
    *_, last = ANSWERS[question].strip().split("\n\n")
    assert last.startswith("Shown by: ")
    assert re.search(r"`[^`]+`", last)


def test_the_tests_and_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:app|tests|benchmarks|deploy|docs)/[\w/.-]+)(?:::(\w+))?`", FAQ)
    assert len(named) > len(ANSWERS)
    for path, test in named:
        assert (ROOT / path).is_file(), path
        if test:
            functions = ast.walk(ast.parse((ROOT / path).read_text()))
            assert test in {node.name for node in functions if isinstance(node, ast.FunctionDef)}, (path, test)
