"""Where the ranks of several hosts meet: one address and one port, listened on before anything starts.

The leading supervisor opens the socket itself, on the asked address only, and hands it on to the launcher: no
port is guessed twice, and another host can try the connection while the run still waits.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

import psutil

from nantui.errors import FAILED, UserError

FIRST_PORT, LAST_PORT = 29400, 29499
NOWHERE = ("192.0.2.1", 9)
"""An address that nobody has (RFC 5737): asking for the way there sends nothing."""
EVERY_ADDRESS = ("0.0.0.0", "::", "*")
CONNECT_S = 5.0


def split(endpoint: str) -> tuple[str, int]:
    """Return (host, port) of "HOST:PORT"; the port is 0 where none is given. Raises UserError."""
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        host, port = endpoint, "0"
    host = host.strip("[]")
    if not port.isdigit() or int(port) > 65535:
        raise UserError(f"endpoint {endpoint!r}: expects HOST:PORT, e.g. 10.0.0.1:29400")
    if host in EVERY_ADDRESS:
        raise UserError(f"endpoint {endpoint!r} is every address: name the one that the other hosts reach")
    return host, int(port)


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_endpoint(asked: str = "") -> tuple[socket.socket, str]:
    """Listen where the ranks shall meet; returns the socket and its endpoint as other hosts reach it.

    Without `asked` it is this host's own address and the first free port from 29400 on. Raises UserError when
    nothing can listen there.
    """
    host, port = split(asked) if asked else ("", 0)
    host = host or own_address()
    ports = [port] if port else range(FIRST_PORT, LAST_PORT + 1)
    why = ""
    for candidate in ports:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address, family=family, backlog=128), join(host, candidate)
        except OSError as error:
            why = (error.strerror or str(error)).partition(" (while")[0]
    raise UserError(
        f"cannot listen on {join(host, ports[0])}: {why}; give an address of this host: --endpoint HOST:PORT",
        FAILED,
    )


def own_address() -> str:
    """Return this host's address on the way to others. Raises UserError where only a person can tell."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(NOWHERE)
        return str(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(socket.gethostname())
        if not address.startswith("127."):
            return address
    raise UserError("this host's address is not known: say where the ranks meet, --endpoint HOST:PORT")


def reach(endpoint: str, timeout_s: float = CONNECT_S) -> str:
    """Connect once and hang up; returns why it does not work, empty when it does."""
    try:
        socket.create_connection(split(endpoint), timeout_s).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""


def interface_towards(endpoint: str) -> str:
    """Return the network interface that leads to the endpoint, empty where it is not known."""
    try:
        family, _, _, _, address = socket.getaddrinfo(*split(endpoint), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            own = probe.getsockname()[0]
    except OSError:
        return ""
    every = psutil.net_if_addrs().items()
    return next((name for name, found in every if any(one.address == own for one in found)), "")


def repeated(do: Callable[[], None], every_s: float, name: str) -> threading.Event:
    """Do something again and again in a thread, until what is returned is set; nobody waits for its end."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            do()
            stop.wait(every_s)

    threading.Thread(target=run, name=name, daemon=True).start()
    return stop


class Link:
    """Tries the connection again and again, so that a cut network is noticed within seconds."""

    def __init__(self, endpoint: str, every_s: float) -> None:
        self.endpoint = endpoint
        self._since: float | None = None
        self.close = repeated(self._try, every_s, "nantui-link").set

    def down_s(self) -> float:
        """Return for how many seconds no connection has come about, 0 while it does."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def _try(self) -> None:
        begun = time.monotonic()
        self._since = (self._since or begun) if reach(self.endpoint) else None
