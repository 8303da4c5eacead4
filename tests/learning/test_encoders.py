"""Encoders are exported once, name everything that moves an embedding, and equal the network in torch."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from backend.errors import BadEncoderWeights, EncoderUnreadable
from backend.learning import encoders
from backend.learning.encoders import EncoderSpec, export, load
from backend.scoring.local import LocalEncoder
from backend.vision import torchvision
from tests.services.networks import cosines, lite0_in_torch

LITE0 = "efficientnet-lite0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def spec(folder: Path) -> EncoderSpec:
    return export(LITE0, None, folder, "fp32")


@pytest.fixture(scope="module")
def resnet_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = torchvision("models").resnet18(weights=None).state_dict()
    return state


def photos(side: int, n: int = 8) -> NDArray[np.uint8]:
    """Smooth random pictures: noise would say nothing of resizing."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(side))
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255
    return fine.permute(0, 2, 3, 1).to(torch.uint8).numpy()


@pytest.mark.parametrize("side", [32, 75, 192, 260])
def test_the_exported_graph_equals_torch_at_every_size(spec: EncoderSpec, side: int) -> None:
    images = photos(side)

    embeddings = LocalEncoder(spec).encode(images)

    assert embeddings.shape == (8, spec.dims)
    np.testing.assert_allclose(embeddings, lite0_in_torch(images), atol=2e-3)


def test_a_mirrored_encoder_averages_an_image_and_its_mirror_image(spec: EncoderSpec, folder: Path) -> None:
    images = photos(75)
    plain, mirrored = LocalEncoder(spec), LocalEncoder(export("efficientnet-lite0-mirrored", None, folder, "fp32"))

    of_images, of_mirrored = plain.encode(images), plain.encode(np.ascontiguousarray(images[:, :, ::-1]))

    assert cosines(of_images, of_mirrored).min() < 0.999
    np.testing.assert_allclose(mirrored.encode(images), (of_images + of_mirrored) / 2, atol=1e-4)


def test_bf16_moves_embeddings_no_further_than_bf16_in_torch(folder: Path) -> None:
    bf16 = export(LITE0, None, folder, "bf16")
    if bf16.precision != "bf16":
        pytest.skip("this CPU has no bf16")
    images = photos(96, 16)
    exact = lite0_in_torch(images)
    with torch.autocast("cpu", torch.bfloat16):
        yardstick = cosines(lite0_in_torch(images), exact)

    found = cosines(LocalEncoder(bf16).encode(images), exact)

    assert found.mean() >= yardstick.mean()
    assert found.min() > 0.995


def test_resnet18_from_a_state_dict_equals_torch(
    folder: Path, tmp_path: Path, resnet_weights: dict[str, torch.Tensor]
) -> None:
    torch.save(resnet_weights, tmp_path / "resnet18.pth")
    network = torchvision("models").resnet18(weights=None)
    network.load_state_dict(resnet_weights)
    network.fc = torch.nn.Identity()
    network.eval()
    images = photos(64)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    pixels = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear") / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network((pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)).numpy()

    spec = export("resnet18", tmp_path / "resnet18.pth", folder, "fp32")

    assert (spec.dims, spec.side) == (512, 224)
    np.testing.assert_allclose(LocalEncoder(spec).encode(images), expected, rtol=1e-3, atol=1e-3)


def test_an_embedding_does_not_depend_on_its_minibatch(spec: EncoderSpec) -> None:
    images = photos(32, 40)
    encoder = LocalEncoder(spec)

    together = encoder.encode(images)

    np.testing.assert_allclose(together[7:8], encoder.encode(images[7:8]), atol=1e-4)
    assert encoder.encode(images[:0]).shape == (0, spec.dims)


def test_threads_may_encode_at_once(spec: EncoderSpec) -> None:
    images = photos(32, 12)
    encoder = LocalEncoder(spec, streams=2)
    expected = encoder.encode(images)
    found: dict[int, NDArray[np.float32]] = {}

    threads = [
        threading.Thread(target=lambda i=i: found.update({i: encoder.encode(images[3 * i : 3 * i + 3])}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    np.testing.assert_allclose(np.concatenate([found[i] for i in range(4)]), expected, atol=1e-4)


def test_the_digest_names_weights_and_precision_and_not_the_file_format(
    folder: Path, tmp_path: Path, resnet_weights: dict[str, torch.Tensor]
) -> None:
    torch.save(resnet_weights, tmp_path / "a.pth")
    save_file({k: v.contiguous() for k, v in resnet_weights.items()}, tmp_path / "a.safetensors")
    moved = dict(resnet_weights) | {"bn1.bias": resnet_weights["bn1.bias"] + 1e-3}
    torch.save(moved, tmp_path / "b.pth")

    def digest(file: str) -> str:
        return export("resnet18", tmp_path / file, folder, "fp32").digest

    assert digest("a.pth") == digest("a.safetensors")
    assert digest("b.pth") != digest("a.pth")
    assert (
        encoders.runnable("bf16") == "fp32"
        or export(LITE0, None, folder, "bf16").digest != export(LITE0, None, folder, "fp32").digest
    )


def test_a_second_export_writes_nothing(spec: EncoderSpec, folder: Path) -> None:
    before = spec.path.stat().st_mtime_ns

    again = export(LITE0, None, folder, "fp32")

    assert again == spec
    assert spec.path.stat().st_mtime_ns == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_another_process_reads_an_encoder_without_torch(spec: EncoderSpec, folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from backend.learning.encoders import load; "
        f"spec = load(Path({str(folder)!r}), {spec.digest!r}); "
        "print(spec.dims, spec.side, 'torch' in sys.modules, 'openvino' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.split() == [str(spec.dims), str(spec.side), "False", "False"]


def test_another_process_exports_again_without_torch(spec: EncoderSpec, folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from backend.learning.encoders import export; "
        f"spec = export({LITE0!r}, None, Path({str(folder)!r}), 'fp32'); print(spec.digest, 'torch' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.split() == [spec.digest, "False"]


def test_an_export_that_was_deleted_is_made_again(tmp_path: Path, resnet_weights: dict[str, torch.Tensor]) -> None:
    torch.save(resnet_weights, tmp_path / "resnet18.pth")
    spec = export("resnet18", tmp_path / "resnet18.pth", tmp_path / "out", "fp32")
    shutil.rmtree(spec.path.parent)

    again = export("resnet18", tmp_path / "resnet18.pth", tmp_path / "out", "fp32")

    assert again.digest == spec.digest
    assert again.path.exists()


def test_a_changed_onnx_file_is_refused(spec: EncoderSpec, tmp_path: Path) -> None:
    copy = tmp_path / spec.digest
    copy.mkdir()
    copy.joinpath("encoder.json").write_text(spec.path.with_name("encoder.json").read_text())
    copy.joinpath("model.onnx").write_bytes(spec.path.read_bytes() + b"\0")

    with pytest.raises(EncoderUnreadable, match="checksum"):
        load(tmp_path, spec.digest)

    facts = json.loads(copy.joinpath("encoder.json").read_text())
    copy.joinpath("encoder.json").write_text(json.dumps(facts | {"surprise": 1}))
    with pytest.raises(EncoderUnreadable):
        load(tmp_path, spec.digest)


def test_an_export_that_was_damaged_since_is_made_again(tmp_path: Path) -> None:
    spec = export(LITE0, None, tmp_path, "fp32")
    spec.path.write_bytes(spec.path.read_bytes()[:1000])

    again = export(LITE0, None, tmp_path, "fp32")

    assert again.digest == spec.digest
    assert load(tmp_path, spec.digest) == again
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_weights_of_another_network_are_refused(
    folder: Path, tmp_path: Path, resnet_weights: dict[str, torch.Tensor]
) -> None:
    torch.save(resnet_weights, tmp_path / "resnet18.pth")
    (tmp_path / "text.pth").write_text("no weights")

    for file in ("resnet18.pth", "text.pth", "nowhere.pth"):
        with pytest.raises(BadEncoderWeights, match=LITE0):
            export(LITE0, tmp_path / file, folder, "fp32")


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code in a weights file ran",))


def test_a_weights_file_cannot_run_code(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"conv1.weight": _Payload()}, tmp_path / "evil.pth")

    with pytest.raises(BadEncoderWeights):
        export("resnet18", tmp_path / "evil.pth", folder, "fp32")

    assert "ran" not in capsys.readouterr().out
