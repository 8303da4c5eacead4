"""The model alone: encoders as Triton's model processes run them, with arrays in memory. Runs in Triton's own Python.

    python bound.py ENGINE MODEL PRECISION IMAGES MINIBATCH

ENGINE is the engine.py of the model repository, IMAGES an .npy of uint8 (n, h, w, 3). Asked with seconds, it encodes
for so long and answers with images, seconds and CPU seconds. It imports nothing of nextbatch.
"""

import importlib.util
import itertools
import json
import sys
import time

import numpy as np

ANSWER = "@answer "


def main() -> None:
    engine_file, model, precision, images_file, minibatch = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("engine", engine_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    engine = module.Engine(model, precision, streams=1)
    images = np.load(images_file)
    size = int(minibatch)
    parts = itertools.cycle([images[start : start + size] for start in range(0, len(images) - size + 1, size)])
    for _ in range(4):
        engine.encode(next(parts))
    print(f"{ANSWER}{{}}", flush=True)
    for line in sys.stdin:
        wanted_s = json.loads(line)
        count, started, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < wanted_s:
            count += len(engine.encode(next(parts)))
        answer = {"images": count, "seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
        print(f"{ANSWER}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main()
