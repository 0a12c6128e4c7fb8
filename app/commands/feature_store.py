"""The feature store of a command: the configured one, or an embedded Valkey for as long as the command runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings


@contextlib.contextmanager
def with_redis_url(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with a `redis_url`: as they are, or that of an embedded Valkey, which ends with the context.

    Raises CtrError if the embedded Valkey does not start.
    """
    from app.features.loading.embedded_valkey import EmbeddedValkey

    if settings.redis_url:
        yield settings
        return
    with EmbeddedValkey(settings.data_dir / "valkey") as valkey:
        yield settings.model_copy(update={"redis_url": valkey.url})
