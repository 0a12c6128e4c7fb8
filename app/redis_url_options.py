"""What may follow the `?` of `CTR_REDIS_URL`: `NAME=VALUE` pairs, each read to its one meaning, TLS options among them.

No message holds a value, which may be a password.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from app.errors import ConfigError

T = TypeVar("T")

OPTION_NAME = re.compile(r"[a-z_]{1,40}")
BAD_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")

TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_ca_data",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
)
SENTINEL_OPTIONS = ("sentinel_password", "sentinel_username")
OPTIONS = ("db", "password", "protocol", "username", *SENTINEL_OPTIONS, *TLS_OPTIONS)
KNOWN = ", ".join(name for name in OPTIONS if name not in TLS_OPTIONS) + " and those of TLS, ssl_..."
ADVICE = {
    "ssl": "the scheme says it: rediss:// is with TLS, redis:// without",
    "tls": "the scheme says it: rediss:// is with TLS, redis:// without",
    "database": "write db=",
    "timeout": "set CTR_REDIS_TIMEOUT_MS",
    "socket_timeout": "set CTR_REDIS_TIMEOUT_MS",
    "socket_connect_timeout": "set CTR_REDIS_TIMEOUT_MS",
}
"""What to do instead, for options that other programs know."""
FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
VERIFY = {"required": True, "optional": True, "none": False}
VERIFY |= {f"cert_{name}": verify for name, verify in VERIFY.items()}
"""Value of `ssl_cert_reqs` to whether the certificate is checked; a server always shows an `optional` one."""
TLS_VERSIONS = {"1.2": "TLSv1_2", "tlsv1.2": "TLSv1_2", "771": "TLSv1_2"}
TLS_VERSIONS |= {"1.3": "TLSv1_3", "tlsv1.3": "TLSv1_3", "772": "TLSv1_3"}
"""Each as people write it, and as redis-py has it, to its name in `ssl.TLSVersion`."""
ENCODE = "in a user name or password write / as %2F, ? as %3F, # as %23, @ as %40, % as %25"


@dataclass(frozen=True)
class TlsOptions:
    """How the server's certificate is checked, and which one is shown to it; names as in the URL."""

    verify: bool = True
    check_hostname: bool = True
    ca_certs: str = ""
    """File of the certificate authorities that are trusted instead of the system's; likewise the next two."""
    ca_path: str = ""
    ca_data: str = ""
    certfile: str = ""
    keyfile: str = ""
    password: str = field(default="", repr=False)
    min_version: str = ""
    ciphers: str = ""


def read_options(query: str) -> Mapping[str, str]:
    """Return the options by name, decoded. Raises ConfigError for one that is unknown, empty or there twice."""
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, equals, raw = pair.partition("=")
        if not OPTION_NAME.fullmatch(name):
            raise ConfigError(f"what follows the '?' are no options NAME=VALUE; {ENCODE}")
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, 1)
            advice = ADVICE.get(name) or (f"did you mean {close[0]}?" if close else f"known are {KNOWN}")
            raise ConfigError(f"the option {name} is not known; {advice}")
        if name in options:
            raise ConfigError(f"the option {name} is there twice")
        if not equals or not raw:
            raise ConfigError(f"the option {name} has no value")
        if "+" in raw and name in ("password", "username", *SENTINEL_OPTIONS):
            raise ConfigError(f"the option {name} has a '+': write %2B, or %20 for a space")
        options[name] = decoded(raw, f"the option {name}")
    return MappingProxyType(options)


def protocol_of(options: Mapping[str, str]) -> int | None:
    """Return the version of RESP that is asked for, None for whatever the server knows. Raises ConfigError."""
    raw = options.get("protocol")
    if raw not in (None, "2", "3"):
        raise ConfigError("the option protocol is 2 or 3, or left out")
    return None if raw is None else int(raw)


def refuse_tls_options(options: Mapping[str, str], reason: str) -> None:
    """Raise ConfigError, with the reason, if one of the options is about TLS."""
    _refuse(options, TLS_OPTIONS, reason)


def refuse_sentinel_options(options: Mapping[str, str], reason: str) -> None:
    """Raise ConfigError, with the reason, if one of the options is about Sentinels."""
    _refuse(options, SENTINEL_OPTIONS, reason)


def _refuse(options: Mapping[str, str], names: Sequence[str], reason: str) -> None:
    for name in names:
        if name in options:
            raise ConfigError(f"it has the option {name}, but {reason}")


def tls_options(options: Mapping[str, str]) -> TlsOptions:
    """Return what the options say of TLS. Raises ConfigError if a value has no meaning or one needs another."""
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigError("the option ssl_keyfile needs ssl_certfile")
    verify = _one_of(options, "ssl_cert_reqs", VERIFY, True)
    return TlsOptions(
        verify=verify,
        check_hostname=verify and _one_of(options, "ssl_check_hostname", FLAGS, True),
        ca_certs=options.get("ssl_ca_certs", ""),
        ca_path=options.get("ssl_ca_path", ""),
        ca_data=options.get("ssl_ca_data", ""),
        certfile=options.get("ssl_certfile", ""),
        keyfile=options.get("ssl_keyfile", ""),
        password=options.get("ssl_password", ""),
        min_version=_one_of(options, "ssl_min_version", TLS_VERSIONS, ""),
        ciphers=options.get("ssl_ciphers", ""),
    )


def _one_of(options: Mapping[str, str], name: str, meanings: Mapping[str, T], default: T) -> T:
    if name not in options:
        return default
    if (raw := options[name].lower()) not in meanings:
        raise ConfigError(f"the option {name} is one of {', '.join(meanings)}")
    return meanings[raw]


def decoded(text: str, what: str) -> str:
    """Decode %XX. Raises ConfigError for a '%' that encodes nothing, and for what is no UTF-8."""
    if BAD_PERCENT.search(text):
        raise ConfigError(f"{what} has a '%' that begins no code such as %40; write % as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is not UTF-8 once it is decoded") from None
