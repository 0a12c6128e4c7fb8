"""`python -m tests.corpus` writes docs/odd-files.md anew."""

from __future__ import annotations

from tests.corpus.outcomes import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
