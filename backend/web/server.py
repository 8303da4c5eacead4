"""Gunicorn, in this process: one worker with threads, so that caches are shared and SQLite has one writer here."""

from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from backend.hooks import Hooks
from backend.rounds.encoding import encode_now
from backend.web.app import create_app

THREADS = 16  # waiting for the encoder or the database takes a thread; answering takes a few ms


class Lines(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Gunicorn's errors as lines of ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """The application behind gunicorn's gthread worker."""

    def __init__(self, host: str, port: int, hooks: type[Hooks] = Hooks) -> None:
        self._hooks = hooks
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": self._address,
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "timeout": 60,
            "graceful_timeout": 10,
            "keepalive": 30,
            "loglevel": "warning",
            "logger_class": Lines,
            "proc_name": "nextbatch-web",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Flask:
        """In the worker, after the fork: connections and threads must not cross it."""
        return create_app(self._hooks, encode_now)


def run(host: str, port: int, hooks: type[Hooks] = Hooks) -> None:
    """Answer until SIGTERM or SIGINT: requests in flight are finished, at most 10 s long."""
    Server(host, port, hooks).run()
