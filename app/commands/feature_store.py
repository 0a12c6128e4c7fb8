"""The feature store of a command: the configured one, or an embedded Valkey for as long as the command runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape

from app.commands.output import console

if TYPE_CHECKING:
    from app.settings import Settings


@contextlib.contextmanager
def with_redis_url(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with a `redis_url`: as they are, or that of an embedded Valkey, which ends with the context.

    Host, port, database and whether TLS is used are printed on standard error.

    Raises:
        ConfigError: a file that the URL names cannot be read.
        CtrError: the embedded Valkey does not start.
    """
    from app.features.loading.embedded_valkey import EmbeddedValkey
    from app.features.loading.valkey_watch import watched

    if settings.redis_url:
        from app.features.redis_tls import tls_context
        from app.redis_url import parse_redis_url

        url = parse_redis_url(settings.redis_url)
        if url.tls is not None:
            tls_context(url.tls)  # before workers start, which would each fail for themselves
        console.print(f"feature store: {escape(str(url))}", highlight=False, soft_wrap=True)
        yield settings
        return
    with EmbeddedValkey(settings.data_dir / "valkey") as valkey, watched(valkey):
        yield settings.model_copy(update={"redis_url": valkey.url})
