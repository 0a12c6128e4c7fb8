"""`url_host`: a host as it is written in a URL."""

from __future__ import annotations


def url_host(host: str) -> str:
    """Return a name or an address as a URL has it: an IPv6 address is in brackets."""
    return f"[{host}]" if ":" in host else host
