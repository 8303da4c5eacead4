"""torchvision, also where its compiled part does not load beside a CPU build of torch."""

import importlib
from types import ModuleType
from typing import Any

_SCHEMAS: Any = None  # a torch Library takes its schemas with it when it is collected


def torchvision(part: str) -> ModuleType:
    """``torchvision.<part>``, such as "models" or "datasets".

    The registry's torchvision has no CPU build for Linux x86-64. Its import then misses only the schemas of two
    operators, which nothing here calls, so they are declared and the import is done again.
    """
    try:
        return importlib.import_module(f"torchvision.{part}")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import torch

    global _SCHEMAS
    library: Any = torch.library.Library
    _SCHEMAS = library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _SCHEMAS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module(f"torchvision.{part}")
