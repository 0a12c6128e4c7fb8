"""`tls_context`: the one meaning of a URL's TLS options, for the connection of requests and for redis-py's."""

from __future__ import annotations

import os
import ssl

from app.errors import ConfigError
from app.redis_url_options import TlsOptions


def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """Return the context of a client, which trusts the authorities named, or the system's where none is named.

    Raises ConfigError if a file cannot be read or holds something else; the message names the option.
    """
    # Each step is tried by itself, because the errors of OpenSSL name neither the file nor the option.
    named = bool(options.ca_certs or options.ca_path or options.ca_data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if named else ssl.create_default_context()
    try:
        if options.ca_certs:
            option = f"ssl_ca_certs: {options.ca_certs}"
            context.load_verify_locations(cafile=options.ca_certs)
        if options.ca_path:
            option = f"ssl_ca_path: {options.ca_path}"
            os.listdir(options.ca_path)  # OpenSSL takes any folder, and looks into it later
            context.load_verify_locations(capath=options.ca_path)
        if options.ca_data:
            option = "ssl_ca_data"
            context.load_verify_locations(cadata=options.ca_data)
        if options.certfile:
            option = f"ssl_certfile, ssl_keyfile, ssl_password: {options.certfile}"
            # Without a password the library would ask for one on the terminal.
            context.load_cert_chain(options.certfile, options.keyfile or None, lambda: options.password)
        if options.ciphers:
            option = "ssl_ciphers"
            context.set_ciphers(options.ciphers)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else "") or (
            "it holds no certificate" if "ca_" in option else "it does not fit the key, the password or this machine"
        )
        raise ConfigError(f"CTR_REDIS_URL: {option}: {reason}") from error
    if options.min_version:
        context.minimum_version = ssl.TLSVersion[options.min_version]
    context.check_hostname = options.check_hostname
    context.verify_mode = ssl.CERT_REQUIRED if options.verify else ssl.CERT_NONE
    return context
