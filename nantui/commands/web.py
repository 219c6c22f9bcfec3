"""The cockpit in a browser: read-only unless `--act`, on this machine unless `--address`, behind a token.

Each viewer is a process of its own; all end with this command. Needs the extra: pip install 'nantui[web]'.
"""

from __future__ import annotations

import argparse
import errno
import hmac
import logging
import secrets
import shlex
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nantui.commands import common
from nantui.entry_points import command_line
from nantui.errors import FAILED, USAGE, UserError
from nantui.terminal_text import is_printable

if TYPE_CHECKING:
    from aiohttp.web import Application

COOKIE, SHORTEST = "nantui_token", 16
OTHERS = stat.S_IRWXG | stat.S_IRWXO
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_directory(parser)
    common.add_flags(parser, act="let viewers press every key, not only look")
    parser.add_argument("--address", default=LOOPBACK[0], help="listen there, default: this machine only")
    parser.add_argument("--port", type=int, default=8321, help="default: %(default)s")
    viewers = "at most so many at once, default: %(default)s"
    parser.add_argument("--viewers", type=int, default=4, help=viewers)
    token = "a file that only you can read; else one is made up"
    parser.add_argument("--token-file", type=Path, metavar="FILE", help=token)


def run(arguments: argparse.Namespace) -> int:
    """Print the address with its token and serve until Ctrl-C."""
    common.existing(arguments.directory)
    token = token_of(arguments.token_file)
    if not 1 <= arguments.port < 1 << 16 or arguments.viewers < 1:
        raise UserError("--port expects a number from 1 to 65535, --viewers one of at least 1", USAGE)
    _refuse_taken(arguments.address, arguments.port)
    server = served(arguments, token)
    host = f"[{arguments.address}]" if ":" in arguments.address else arguments.address
    manner = "viewers can act" if acts(arguments) else "read-only"
    common.say(f"open http://{host}:{arguments.port}/?token={token}   ({manner}; Ctrl-C ends it)")
    if arguments.address not in LOOPBACK:
        common.say("note: plain HTTP; from elsewhere rather use ssh -L, or a proxy that speaks TLS")
    server.serve()
    return 0


def acts(arguments: argparse.Namespace) -> bool:
    """Tell whether viewers may do more than look."""
    return bool(arguments.act and not arguments.read_only)


def token_of(path: Path | None) -> str:
    """Return the token in a file, or a new one. Raises UserError for a file that others can read."""
    if path is None:
        return secrets.token_urlsafe(24)
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(path.stat().st_mode) & OTHERS:
                raise UserError(f"{path}: others can read it; chmod 600 {path}, and change the token", FAILED)
            token = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the token cannot be read ({error})", FAILED) from None
    if len(token) < SHORTEST or not token.isascii() or not is_printable(token):
        raise UserError(f"{path}: a token is one line of at least {SHORTEST} printable characters", USAGE)
    return token


def _refuse_taken(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        wrong = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "address"
        why = f"cannot listen on {address} port {port}: {error.strerror or error}"
        raise UserError(f"{why}; choose another --{wrong}", FAILED) from None


def served(arguments: argparse.Namespace, token: str) -> Any:
    """Return the server, behind its token. Raises UserError without textual-serve."""
    try:
        from aiohttp import web
        from textual_serve.server import Server
    except ImportError:
        raise UserError("textual-serve is not installed: pip install 'nantui[web]'", FAILED) from None

    class Guarded(Server):
        """Lets in who knows the token, so many at a time; its log has neither addresses nor tokens."""

        viewers = 0

        def initialize_logging(self) -> None:
            logging.disable()

        async def on_startup(self, app: Application) -> None:
            pass

        async def _make_app(self) -> Application:
            app = await super()._make_app()
            app.middlewares.append(admit)
            return app

        async def handle_index(self, request: web.Request) -> Any:
            self.public_url = f"{request.scheme}://{request.host}"
            return await super().handle_index(request)

        async def handle_websocket(self, request: web.Request) -> Any:
            if self.viewers >= arguments.viewers:
                full = f"{self.viewers} viewers are here already; try again later"
                raise web.HTTPServiceUnavailable(text=full)
            self.viewers += 1
            try:
                return await super().handle_websocket(request)
            finally:
                self.viewers -= 1

    def known(given: str) -> bool:  # in a time that does not tell how much of it was right
        return hmac.compare_digest(given.encode(), token.encode())

    @web.middleware
    async def admit(request: web.Request, handler: Any) -> Any:
        origin = request.headers.get("Origin", "")
        if origin and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text="another page asked for this")
        if known(request.cookies.get(COOKIE, "")):
            return await handler(request)
        if not known(request.query.get("token", "")):
            raise web.HTTPForbidden(text="open the address that nantui web printed, with its token")
        answer = web.HTTPFound(request.path)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        raise answer

    words = [*command_line(), str(arguments.directory.resolve())]
    words += [] if acts(arguments) else ["--read-only"]
    words += [f"--python={arguments.python}"] if arguments.python else []
    return Guarded(shlex.join(words), host=arguments.address, port=arguments.port, title="nantui")
