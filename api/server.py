"""Runs the application under uvicorn."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop
from litestar.types import ASGIApp

from api import logs
from api import settings as settings_module
from api.app import create_app
from api.boot import Boot
from api.settings import Settings
from api.storage import database
from api.storage.keys import Keys
from pipeline.errors import ConfigurationError
from pipeline.threads import still_at_work

INTERRUPTED = 130
"""A shell's exit code for what Ctrl-C has ended."""
GONE_MS = 30_000
"""How long a client's machine may leave what was sent to it unanswered."""
GOODBYE_S = 5
"""How long open responses may take to end after a signal."""


ACCEPTED_AT_ONCE = 16
"""uvloop takes one connection a turn from each listening socket: with one, new streams would wait behind live ones."""


class NotLoopback(ConfigurationError):
    """Without keys the server must not be reachable from other machines."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"there are no keys that callers must show, so loopback addresses are served only, not {host!r}; make one "
            "with `stagecast keys add NAME`, or set STAGECAST_API_KEYS"
        )


class Server(uvicorn.Server):
    """Ends the runs on a signal; uvicorn by itself would wait for their streams."""

    boot: Boot | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        super().handle_exit(sig, frame)
        if self.boot is not None:
            asyncio.get_running_loop().call_soon_threadsafe(self.boot.say_goodbye)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal.

    Raises:
        ConfigurationError: The start failed; the message says why and what to do.
    """
    _check_keys(settings, host)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, host, port))
    except KeyboardInterrupt:
        if still_at_work():  # in a plugin, say: everything of ours is closed
            logging.shutdown()
            os._exit(INTERRUPTED)
        raise


def serve_reloading(settings: Settings, host: str, port: int) -> None:
    """Serve loopback addresses, and start anew whenever a file of the packages changes."""
    if not is_loopback(host):
        raise ConfigurationError(f"--reload is for developing, and serves loopback addresses only, not {host!r}")
    here = Path(__file__).parent.parent
    packages = [str(here / name) for name in ("api", "pipeline", "plugins")]
    uvicorn.run(
        "api.server:from_environment", factory=True, host=host, port=port, reload=True, reload_dirs=packages,
        log_level=settings.log_level.lower(), timeout_graceful_shutdown=GOODBYE_S,
    )  # fmt: skip


def _check_keys(settings: Settings, host: str) -> None:
    if not is_loopback(host) and not settings.api_keys and not asyncio.run(_stored_keys(settings)):
        raise NotLoopback(host)


async def _stored_keys(settings: Settings) -> int:
    async with database.opened(settings, share=True) as engine:
        return await Keys(engine).count()


async def _serve(settings: Settings, host: str, port: int) -> None:
    failures: list[Exception] = []

    def failed(problem: Exception) -> None:
        failures.append(problem)
        server.should_exit = True

    listening = _listening(host, port)
    boot = Boot(settings, failed, keys_required=not is_loopback(host))
    server = Server(configuration(create_app(boot), host, port))
    server.boot = boot
    with listening:
        await server.serve(sockets=[listening, *(listening.dup() for _ in range(ACCEPTED_AT_ONCE - 1))])
    if failures:
        raise failures[0]


def _listening(host: str, port: int) -> socket.socket:
    """Return a bound socket, so that a port that is taken is told in our words."""
    [family, *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # Connections that are made here inherit them: a client that is gone without a word is noticed.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_MS)
        listening.bind((host, port))
    except OSError as problem:
        listening.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {problem.strerror}; stop what runs there, or choose another --port"
        ) from None
    return listening


def configuration(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    """Return uvicorn's configuration: httptools, no access log, our own log format, an end that is not waited for."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GOODBYE_S,
        timeout_keep_alive=65,
        backlog=2048,
    )


def is_loopback(host: str) -> bool:
    """Say whether every address of this host is this machine's own."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


def from_environment() -> ASGIApp:
    """Make the application for a server that reloads it when the code changes."""
    settings = settings_module.load()
    logs.configure(settings.log_level)

    def failed(problem: Exception) -> None:
        raise problem

    return create_app(Boot(settings, failed))
