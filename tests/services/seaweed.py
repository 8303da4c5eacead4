"""A real S3 server of our own, once a session: SeaweedFS in a temporary folder, on loopback, gone with the tests."""

import json
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from backend.processes import die_with_parent, free_port, listening_problem, tail, wait_until

ACCESS_KEY = "nextbatch-tests"
SECRET_KEY = "not-a-secret-of-anyone"
_GRPC_OFFSET = 10_000  # every server also listens for gRPC on its port + 10000


@dataclass(frozen=True)
class S3Server:
    """Where the server is, and the keys of its only user, an administrator."""

    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = "us-east-1"

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which boto3's credential chain finds the keys, and nothing else of this machine."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, attempts: int = 5) -> Any:
        """A boto3 client, to fill buckets with: patient, for a busy server refuses a write now and then."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, connect_timeout=10),
        )


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server, with its keys in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@contextmanager
def running(*others: Mapping[str, Any]) -> Iterator[S3Server]:
    """A started server that answers reads and writes. Bucket names need three letters at least.

    `others` are identities beside the administrator, as SeaweedFS's configuration writes them.
    """
    folder = Path(tempfile.mkdtemp(prefix="nextbatch-seaweed-"))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity, *others]}))
    master, volume, filer, s3 = _free_ports(4)
    weed = Path(sysconfig.get_path("scripts"), "weed")
    with (folder / "weed.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"),
                *("-filer", "-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0"),
                *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
                *("-volume.max=100", "-master.volumeSizeLimitMB=256", "-s3.allowDeleteBucketNotEmpty=true"),
                *("-master.electionTimeout=1s", "-volume.preStopSeconds=0", "-master.telemetry=false"),
                "-s3.port.lance=0",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, preexec_fn=die_with_parent(),
        )  # fmt: skip
    try:
        found = S3Server(f"http://127.0.0.1:{s3}")
        if not wait_until(lambda: server.poll() is not None or _works(found), timeout_s=90, poll_s=0.3):
            raise TimeoutError(f"SeaweedFS did not start within 90 s:\n{tail(folder / 'weed.log')}")
        if server.poll() is not None:
            raise ChildProcessError(f"SeaweedFS ended with {server.returncode}:\n{tail(folder / 'weed.log')}")
        yield found
    finally:
        server.kill()  # SIGTERM takes it up to 26 s, and the data is thrown away
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _works(server: S3Server) -> bool:
    """Whether a write and a read pass: for a second or two after it listens, some do not."""
    client = server.client(attempts=1)
    try:
        client.create_bucket(Bucket="is-it-ready")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            return False
    except BotoCoreError:
        return False
    try:
        client.put_object(Bucket="is-it-ready", Key="yes", Body=b"yes")
        return bool(client.get_object(Bucket="is-it-ready", Key="yes")["Body"].read() == b"yes")
    except (ClientError, BotoCoreError):
        return False


def _free_ports(count: int) -> list[int]:
    """Loopback ports that are free together with the one 10000 above each."""
    ports: list[int] = []
    while len(ports) < count:
        port = free_port()
        is_apart = all(abs(port - other) not in (0, _GRPC_OFFSET) for other in ports)
        if is_apart and not listening_problem("127.0.0.1", port + _GRPC_OFFSET):
            ports.append(port)
    return ports
