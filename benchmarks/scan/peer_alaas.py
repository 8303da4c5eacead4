"""ALaaS 0.2.1 as its documentation starts and asks it; runs in ALaaS's own environment.

    python alaas.py PORT BATCH_SIZE THREADS

Asked with {"uris": [...], "budget": n} it answers with the seconds of one query. What keeps the release from running
on today's machine is mended here and nothing else: torchvision's compiled part does not load beside a CPU build of
torch (two operators that nobody calls are declared), and the hub that the weights come from is out of reach (the
same ResNet-18 is built with the fixed seed's weights). Its files go below HOME.
"""

import json
import os
import sys
import time

ANSWER = "@answer "


def mend() -> None:
    """Before ALaaS is imported. Jina forks its executors, so they inherit what is patched here."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import models

    def load(_repository: str, model: str, pretrained: bool, _kept: object = library) -> torch.nn.Module:
        assert pretrained
        torch.manual_seed(0)
        network: torch.nn.Module = getattr(models, model)(weights=None)
        return network

    torch.hub.load = load


CONFIG = """\
name: "IMG_CLASSIFICATION"
version: 0.1
active_learning:
  strategy:
    type: "LeastConfidence"
    model:
      name: "resnet18"
      hub: "pytorch/vision:v0.10.0"
      batch_size: {batch_size}
      device: "cpu"
  al_worker:
    protocol: "grpc"
    host: "127.0.0.1"
    port: {port}
    replicas: 1
"""


def main() -> None:
    port, batch_size, threads = (int(argument) for argument in sys.argv[1:])
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    os.environ.setdefault("JINA_MP_START_METHOD", "fork")
    mend()
    from alaas.client import Client
    from alaas.server import Server

    path = os.path.join(os.environ["HOME"], f"alaas-{port}.yml")  # noqa: PTH118 one import less
    with open(path, "w") as file:  # noqa: PTH123
        file.write(CONFIG.format(port=port, batch_size=batch_size))
    Server.start_by_config(path)
    client = Client(f"grpc://127.0.0.1:{port}")
    print(f"{ANSWER}{{}}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        started = time.perf_counter()
        picked = client.query_by_uri(question["uris"], question["budget"])
        seconds = time.perf_counter() - started
        print(f"{ANSWER}{json.dumps({'seconds': seconds, 'picked': picked})}", flush=True)


if __name__ == "__main__":
    main()
