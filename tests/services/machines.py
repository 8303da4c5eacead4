"""Machines of our own on this one: network, mount and host-name namespaces on one bridge, where the kernel lets us."""

import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROUTES = 0.2  # seconds between two looks at a stopping flag


@dataclass(frozen=True)
class Machine:
    """A namespace called `name`; `link` is this side of its cable."""

    name: str
    link: str

    def start(
        self, words: Sequence[str | Path], environment: Mapping[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """A process on it, with a /dev/shm and a host name of its own; its group can be killed."""
        script = f'mount -t tmpfs tmpfs /dev/shm && hostname {self.name} && exec "$@"'
        line = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts", "sh", "-c", script, "sh", *words]
        with log.open("ab") as output:
            return subprocess.Popen(line, stdout=output, stderr=output, env=dict(environment), process_group=0)

    def unplug(self) -> None:
        """Cut it off: nothing tells either side."""
        run("ip", "link", "set", self.link, "down")


@dataclass(frozen=True)
class Network:
    """The machines, and where they reach this one."""

    address: str
    machines: tuple[Machine, ...]


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def why_not() -> str:
    """Why there can be no machines here; empty where there can."""
    if not os.environ.get("NEXTBATCH_MACHINES"):
        return "three workers that start cost a minute of CPU: make test-machines"
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        return "network namespaces need root, ip and unshare"
    probe = f"nbprobe{os.getpid()}"
    try:
        run("ip", "netns", "add", probe)
        run("ip", "link", "add", f"{probe}b"[:15], "type", "bridge")
        run("ip", "link", "del", f"{probe}b"[:15])
        run("ip", "netns", "exec", probe, "unshare", "--mount", "--uts", "true")
    except subprocess.CalledProcessError as error:
        return f"no namespaces here: {error.stderr.decode().strip()}"
    finally:
        subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return ""


@contextmanager
def running(count: int) -> Iterator[Network]:
    """So many machines on a bridge of their own; gone at the end."""
    tag = f"nb{random.randrange(16**4):04x}"
    subnet = f"10.{random.randrange(200, 250)}.{random.randrange(250)}"
    machines = tuple(Machine(f"{tag}-{n}", f"{tag}v{n}") for n in range(count))
    try:
        run("ip", "link", "add", f"{tag}b", "type", "bridge")
        run("ip", "addr", "add", f"{subnet}.1/24", "dev", f"{tag}b")
        run("ip", "link", "set", f"{tag}b", "up")
        for n, machine in enumerate(machines):
            run("ip", "netns", "add", machine.name)
            run("ip", "link", "add", machine.link, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
            run("ip", "link", "set", machine.link, "master", f"{tag}b", "up")
            inside = ("ip", "-n", machine.name)
            run(*inside, "addr", "add", f"{subnet}.{n + 2}/24", "dev", "eth0")
            run(*inside, "link", "set", "eth0", "up")
            run(*inside, "link", "set", "lo", "up")
        yield Network(f"{subnet}.1", machines)
    finally:
        for machine in machines:
            subprocess.run(["ip", "netns", "del", machine.name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", f"{tag}b"], capture_output=True, check=False)


@contextmanager
def forwarding(address: str, port: int) -> Iterator[int]:
    """A port of `address` whose connections go to the loopback's `port`, where a service listens."""
    stopping = threading.Event()
    door = socket.create_server((address, 0))
    door.settimeout(ROUTES)

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while not stopping.is_set():
            try:
                caller, _ = door.accept()
            except TimeoutError:
                continue
            try:
                service = socket.create_connection(("127.0.0.1", port))
            except OSError:
                caller.close()
                continue
            caller.settimeout(None)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in ((socket.TCP_KEEPIDLE, 4), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 2)):
                caller.setsockopt(socket.IPPROTO_TCP, option, value)  # as Postgres itself would notice a dead caller
            for ends in ((caller, service), (service, caller)):
                threading.Thread(target=carry, args=ends, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(door.getsockname()[1])
    finally:
        stopping.set()
        thread.join()
        door.close()
