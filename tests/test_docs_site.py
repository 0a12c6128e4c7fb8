"""The site has every page, in its navigation too, and every link leads somewhere on it.

`make docs` builds it, and has MkDocs check the same; `make test` does without MkDocs.
"""

from __future__ import annotations

import importlib.util
import posixpath
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.pages import DOCS, PAGES, ROOT, blocks, links

SPECIFICATION = importlib.util.spec_from_file_location("site_pages", DOCS / "site_pages.py")
assert SPECIFICATION is not None
assert SPECIFICATION.loader is not None
site = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(site)


class ConfigLoader(yaml.SafeLoader):
    """Reads mkdocs.yml without what it asks to be called."""


ConfigLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
CONFIG: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), ConfigLoader)
ON_SITE = {site.site_path(path): path for path in site.linked_outside()} | {
    path.relative_to(DOCS).as_posix(): path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*") if path.is_file()
}


def leaves(entry: Any) -> Iterator[str]:
    match entry:
        case str() if entry.endswith("/"):
            yield from (site.site_path(page) for page in site.pages_of(entry))
        case str():
            yield entry
        case dict():
            yield from (leaf for value in entry.values() for leaf in leaves(value))
        case list():
            yield from (leaf for value in entry for leaf in leaves(value))


def test_the_navigation_names_every_page_once() -> None:
    named = list(leaves(CONFIG["nav"]))
    pages = {path for path in ON_SITE if path.endswith(".md")}
    assert pages - set(named) == set(), "pages without a place in the `nav` of mkdocs.yml"
    assert sorted(named) == sorted(pages)


@pytest.mark.parametrize("page", sorted(path for path in ON_SITE if path.endswith(".md")))
def test_links_lead_somewhere_on_the_site(page: str) -> None:
    text = (ROOT / ON_SITE[page]).read_text()
    rewritten = site.rewrite(text, ON_SITE[page])
    assert len(links(rewritten)) == len(links(text))
    for link in links(rewritten):
        target = link.partition("#")[0]
        if target and "://" not in target:
            assert posixpath.normpath(posixpath.join(posixpath.dirname(page), target)) in ON_SITE, link
    assert [body for name in ("sh", "python") for body in blocks(rewritten, name)] == [
        body for name in ("sh", "python") for body in blocks(text, name)
    ]


def test_every_page_of_the_repository_is_on_the_site() -> None:
    assert {path.relative_to(ROOT).as_posix() for path in PAGES} <= set(ON_SITE.values())


def test_what_belongs_to_a_list_item_is_indented_by_four_columns() -> None:
    text = "1. a\n   b\n\n   ```sh\n   c\n     d\n   ```\n- e\n\n  | f |\n\ng\n\n```yaml\n- h\n  i\n```\n"
    deeper = "1. a\n    b\n\n    ```sh\n    c\n      d\n    ```\n- e\n\n    | f |\n\ng\n\n```yaml\n- h\n  i\n```\n"
    assert site.indent_lists(text) == deeper
