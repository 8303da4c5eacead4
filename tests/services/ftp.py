"""A real FTP server of our own: pyftpdlib in a thread, on loopback, which remembers what it was asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

USER = "nextbatch"
PASSWORD = "not-a-secret-of-anyone"


@dataclass
class FtpServer:
    """Where it is, and the commands it got, such as `RETR a.jpg`."""

    host_port: str
    commands: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    """Whether a connection ended."""

    @property
    def url(self) -> str:
        return f"ftp://{self.host_port}"

    def count(self, verb: str) -> int:
        return sum(command.split(" ")[0] == verb for command in self.commands)


@contextmanager
def running(root: Path, lacks: tuple[str, ...] = (), **settings: object) -> Iterator[FtpServer]:
    """Serve `root` to anonymous and to USER. `lacks` are commands that it does not know; `settings` are pyftpdlib's."""
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(str(root))
    authorizer.add_user(USER, PASSWORD, str(root), perm="elr")
    found = FtpServer("")

    class Handler(FTPHandler):
        def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
            found.commands.append(f"{cmd} {arg}".strip())
            super().pre_process_command(line, cmd, arg)

        def on_login(self, username: str) -> None:
            found.logins.append(username)

        def on_disconnect(self) -> None:
            found.closed.set()

    Handler.authorizer = authorizer
    Handler.proto_cmds = {name: how for name, how in FTPHandler.proto_cmds.items() if name not in lacks}
    Handler.auth_failed_timeout = 0
    for name, value in settings.items():
        setattr(Handler, name, value)
    server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
    found.host_port = f"127.0.0.1:{server.address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.close_all()
        thread.join(10)
