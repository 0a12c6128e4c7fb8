"""Options of the commands that talk to a running service: where it is, and the key."""

from __future__ import annotations

from typing import Annotated

import typer

ApiKey = Annotated[
    str | None, typer.Option(help="Sent as X-API-Key.", show_default="the first of CTR_API_KEYS that is no hash")
]
UNAUTHORIZED = 401
ANY_ADDRESS = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
"""Where a service listens on all addresses to where this machine reaches it."""


def address_and_key(url: str | None, api_key: str | None) -> tuple[str, str | None]:
    """Return the address and the key as given, or else those that the settings have for `ctr serve`.

    Raises ConfigError if a setting is wrong.
    """
    from app.header_keys import is_hashed
    from app.settings import load_settings
    from app.url_host import url_host

    settings = load_settings()
    if url is None:
        url = reachable(f"http://{url_host(settings.host)}:{settings.port}")
    if api_key is None:
        keys = (key.get_secret_value() for key in settings.api_keys)
        api_key = next((key for key in keys if not is_hashed(key)), None)
    return url, api_key


def key_advice(api_key: str | None) -> str:
    """Say what to do where the service refuses a request for its key, or for having none."""
    given = "it does not know the key that was sent" if api_key else "none was sent"
    return f"{given}: give one of its keys with --api-key, or in CTR_API_KEYS, as it is and not its hash"


def reachable(url: str) -> str:
    """Return a service's URL as this machine reaches it, also where it listens on all addresses."""
    for listening, reached in ANY_ADDRESS.items():
        url = url.replace(listening, reached)
    return url
