from __future__ import annotations

import fnmatch

from app.features.key_template import KeyTemplate


def test_ids_and_keys_are_turned_into_each_other() -> None:
    template = KeyTemplate("ctr:{id}:v1")
    assert template.key("a:b") == "ctr:a:b:v1"
    assert template.id("ctr:a:b:v1") == "a:b"
    for other in ("ctr:a:b", "a:b:v1", "other"):
        assert template.id(other) is None


def test_the_pattern_matches_all_keys_and_takes_nothing_in_the_template_for_a_wildcard() -> None:
    assert KeyTemplate("item[1]*:{id}").pattern == "item\\[1\\]\\*:*"
    assert fnmatch.fnmatch(KeyTemplate("uf:{id}").key("7"), KeyTemplate("uf:{id}").pattern)
