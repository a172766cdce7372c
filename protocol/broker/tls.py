"""TLS to Redis: what is wrong with a file or a certificate, in words that say what to do."""

import os
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from digitq.protocol.errors import UsageError

# Error codes of OpenSSL
UNKNOWN_CA = {2, 18, 19, 20, 21}  # no CA that is trusted here has signed the certificate
OTHER_HOST = {62, 64}  # the certificate is valid for another name or IP address
SOURCE_LINE = re.compile(r" \(_ssl\.c:\d+\)$")  # Python adds the line of its own source


def check_tls_options(options: Mapping[str, Any]) -> None:
    """Use the options of TLS as redis-py will. Raises `UsageError` for a wrong file or value."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    key, password = options.get("ssl_keyfile"), options.get("ssl_password", "")
    uses: dict[str, Callable[[str], object]] = {
        "ssl_ca_certs": lambda path: context.load_verify_locations(cafile=path),
        "ssl_ca_path": os.listdir,
        "ssl_ca_data": lambda text: context.load_verify_locations(cadata=text),
        "ssl_ciphers": context.set_ciphers,
        "ssl_keyfile": lambda path: open(path, "rb").close(),
        # Without a password, OpenSSL would ask for one on the terminal
        "ssl_certfile": lambda path: context.load_cert_chain(path, key, password),
    }
    for name, use in uses.items():
        if name in options:
            try:
                use(options[name])
            except OSError as error:  # also `ssl.SSLError`
                value = "" if name == "ssl_ca_data" else f"={options[name]}"
                reason = SOURCE_LINE.sub("", error.strerror or str(error.args[-1])).rstrip(".")
                raise UsageError(f"the broker's {name}{value}: {reason}") from None
    if key and "ssl_certfile" not in options:
        raise UsageError("the broker's ssl_keyfile is of no use without ssl_certfile")


def describe_refusal(error: BaseException) -> str | None:
    """Why the certificate of Redis is refused, and the remedy; None for other errors."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return None
    reason = cause.verify_message.rstrip(".")
    if cause.verify_code in UNKNOWN_CA:
        remedy = "name the file of its CA, ?ssl_ca_certs=/path/ca.pem"
        return f"has a certificate that no trusted CA has signed ({reason}): {remedy}"
    if cause.verify_code in OTHER_HOST:
        remedy = "name Redis in the URL as its certificate does"
        return f"has a certificate for another name ({reason}): {remedy}"
    return f"has a certificate that is not valid ({reason})"
