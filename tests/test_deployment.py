"""docker-compose.yml and Dockerfile against Compose's own parser and against the code, without a container engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.credentials
import compose
import numpy as np
import pytest
import typer.main
import yaml
from numpy.typing import NDArray
from sqlalchemy.engine import make_url

from backend import environments
from backend.cli import app
from backend.connections import answers
from backend.learning import encoders
from backend.learning.encoders import EncoderSpec
from backend.processes import free_port, wait_until
from backend.scoring.local import LocalEncoder
from backend.scoring.repository import model_name
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.stock import write_stock_model
from backend.scoring.triton import TritonEncoder
from backend.settings import Settings

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
SECRETS = {
    name: f"{name.lower()}-in-the-tests"
    for name in (
        "LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "NEXTBATCH_WEBHOOK_SECRET", "POSTGRES_PASSWORD",
        "S3_ACCESS_KEY", "S3_SECRET_KEY",
    )
}  # fmt: skip
OURS = ("migrate", "export", "web", "worker")
Service = dict[str, Any]


def composed(secrets: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    program = Path(compose.__file__).with_name("docker-compose")  # the script around it loses the exit status
    command = [program, "--env-file", os.devnull, "-f", FILE, "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin"} | secrets, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    """The services as Docker Compose itself reads them."""
    done = composed(SECRETS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Service] = json.loads(done.stdout)["services"]
    return found


def port_of(service: Service, option: str) -> int:
    """What follows `option` in the service's command, or is glued to it."""
    text = " ".join(service["command"])
    found = re.search(rf"{re.escape(option)}[= ](\d+)", text)
    assert found, f"{option} in {text}"
    return int(found[1])


@pytest.mark.parametrize("missing", SECRETS)
def test_no_secret_has_a_default(missing: str) -> None:
    done = composed({name: value for name, value in SECRETS.items() if name != missing})

    assert done.returncode != 0
    assert missing in done.stderr


def test_no_secret_stands_in_the_file() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY")
    for name, service in yaml.safe_load(FILE.read_text())["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if secret.search(variable) and variable != "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN":
                assert re.fullmatch(r"\$\{\w+:\?set it in \.env\}", value), f"{name}: {variable}"
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_image_is_pinned_and_those_that_we_test_with_are_the_same(services: dict[str, Service]) -> None:
    images = {name: service["image"] for name, service in services.items()}
    version = subprocess.run([Path(sys.executable).with_name("weed"), "version"], capture_output=True, text=True).stdout

    for name, image in images.items():
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", image), f"{name}: {image}"
    assert images["label-studio"].endswith(environments.LABEL_STUDIO[0].replace("==", ":").removeprefix("label-studio"))
    assert version.split()[2] == images["s3"].rpartition(":")[2]


def test_nobody_is_root_or_may_become_it(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
    assert all(services[name]["read_only"] for name in OURS)


def test_only_what_people_open_is_published_and_only_here(services: dict[str, Service]) -> None:
    ports = [(name, port) for name, service in services.items() for port in service.get("ports", [])]
    published = {(name, port["host_ip"], port["target"]) for name, port in ports}

    assert published == {("label-studio", "127.0.0.1", 8080), ("web", "127.0.0.1", 9090)}


def test_everything_that_stays_up_has_a_check_and_waits_for_what_it_needs(services: dict[str, Service]) -> None:
    for name, service in services.items():
        if service["restart"] == "no":
            assert "healthcheck" not in service
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name
        for needed, rule in service.get("depends_on", {}).items():
            is_once = services[needed]["restart"] == "no"
            assert rule["condition"] == ("service_completed_successfully" if is_once else "service_healthy")


@pytest.mark.parametrize("name", OURS)
def test_our_commands_and_their_options_exist(name: str, services: dict[str, Service]) -> None:
    checks = [services[name]["command"]]
    test = services[name].get("healthcheck", {"test": []})["test"]
    if test[1:2] == ["nextbatch"]:
        checks.append(test[2:])
    root: Any = typer.main.get_command(app)

    for words in checks:
        with root.make_context("nextbatch", list(words)) as context:
            _, command, rest = root.resolve_command(context, list(words))
            assert command is not None
            command.make_context(name, rest, parent=context).close()


def test_the_variables_are_settings_and_name_services_and_ports_of_the_file(services: dict[str, Service]) -> None:
    known = {
        str(field.validation_alias or f"NEXTBATCH_{name.upper()}") for name, field in Settings.model_fields.items()
    }
    known |= {botocore.credentials.EnvProvider.ACCESS_KEY, botocore.credentials.EnvProvider.SECRET_KEY}
    environment = services["worker"]["environment"]
    database = make_url(environment["NEXTBATCH_DATABASE_URL"])
    triton, _, grpc_port = environment["TRITON_URL"].partition(":")

    assert all(services[name]["environment"] == environment for name in OURS)
    assert set(environment) <= known
    assert (urlsplit(environment["NEXTBATCH_URL"]).hostname, urlsplit(environment["NEXTBATCH_URL"]).port) == (
        "web", port_of(services["web"], "--port"),
    )  # fmt: skip
    assert (urlsplit(environment["LABEL_STUDIO_URL"]).hostname, urlsplit(environment["LABEL_STUDIO_URL"]).port) == (
        "label-studio", services["label-studio"]["ports"][0]["target"],
    )  # fmt: skip
    assert (triton, int(grpc_port)) == ("triton", port_of(services["triton"], "--grpc-port"))
    assert (database.host, database.port, database.database) == (
        "postgres", 5432, services["postgres"]["environment"]["POSTGRES_DB"],
    )  # fmt: skip
    assert database.username == services["postgres"]["environment"]["POSTGRES_USER"]
    studio = services["label-studio"]["environment"]
    assert (studio["POSTGRE_HOST"], studio["POSTGRE_NAME"]) == ("postgres", "labelstudio")
    assert environment["NEXTBATCH_PRECISION"] == "fp32"


def test_volumes_are_shared_as_the_code_wants_them(services: dict[str, Service]) -> None:
    def mounts(name: str) -> dict[str, tuple[str, bool]]:
        return {one["target"]: (one["source"], one.get("read_only", False)) for one in services[name]["volumes"]}

    _, encoder, folder, *_ = services["export"]["command"]
    assert encoder in encoders.names()
    assert mounts("export")[folder] == ("models", False)
    assert mounts("triton")[folder] == ("models", True)
    assert f"--model-repository={folder}" in services["triton"]["command"]
    home = services["worker"]["environment"]["NEXTBATCH_HOME"]
    assert mounts("worker")[home] == mounts("web")[home] == ("home", False)
    assert services["worker"]["deploy"]["replicas"] == 2


def test_the_image_is_pinned_not_root_and_copies_what_there_is() -> None:
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if re.match(r"[A-Z]+ ", line)]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    by_word = {words[0]: words[1:] for words in lines}

    assert re.fullmatch(r"python:3\.1[12]\.\d+-slim-\w+", by_word["FROM"][0])
    assert by_word["USER"] == ["10001:10001"]
    assert by_word["EXPOSE"] == ["9090"]
    assert json.loads(" ".join(by_word["ENTRYPOINT"])) == ["nextbatch"]
    sources = [source for words in lines if words[0] == "COPY" for source in words[1:-1]]
    assert all((ROOT / source).exists() and f"!{source}" in ignored for source in sources)
    torch = re.search(r"^TORCH \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch
    assert torch[1] in (ROOT / "Dockerfile").read_text()


class _Composed(EmbeddedTriton):
    """The wheel's Triton with the command of the file, its paths and ports aside, and a stand-in for the backend that
    the wheel lacks."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        super().__init__(folder)
        self.http = f"127.0.0.1:{free_port()}"
        self._words = words

    def _command(self, site: Path, backends: Path) -> list[str | Path]:
        (backends / "onnxruntime").mkdir()
        text = (ROOT / "tests" / "scoring" / "onnx_backend.py").read_text()
        (backends / "onnxruntime" / "model.py").write_text(text)
        ours = {
            "model-repository": str(self.repository),
            "grpc-port": self.url.rpartition(":")[2],
            "http-port": self.http.rpartition(":")[2],
        }
        flags = dict(word.removeprefix("--").split("=", 1) for word in self._words[1:]) | ours
        here = ["--grpc-address=127.0.0.1", "--http-address=127.0.0.1", f"--backend-directory={backends}"]
        binary, *_ = super()._command(site, backends)
        return [binary, *(f"--{name}={value}" for name, value in flags.items()), *here]


def test_triton_by_the_files_command_serves_the_exported_repository_to_the_client_as_it_is(
    tmp_path: Path, services: dict[str, Service], exact: EncoderSpec, images: NDArray[np.uint8]
) -> None:
    server = _Composed(tmp_path, services["triton"]["command"])
    write_stock_model(server.repository, exact, "cpu", instances=1)
    path = urlsplit(services["triton"]["healthcheck"]["test"][-1]).path

    server.start()
    try:
        is_healthy = wait_until(lambda: answers(f"http://{server.http}{path}"), 120)
        encoder = TritonEncoder(server.url, exact)
        rows = encoder.encode(images).astype(np.float64)
        encoder.close()
    finally:
        server.stop()

    expected = LocalEncoder(exact).encode(images).astype(np.float64)
    cosines = (rows * expected).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
    assert is_healthy
    assert cosines.min() >= 0.9999
    assert f"'{model_name(exact.name, exact.digest)}'" in server.log.read_text()
