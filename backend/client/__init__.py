"""Call a running nextbatch from Python: ``Client("http://localhost:9090").project("flowers").counts.labelled``.

One call selects from a pool: ``Client(url).select(uris, budget=1000)``. Importing it brings the standard library alone,
and the first `Client` brings httpx, so that scripts and notebooks may use it anywhere.
"""

from backend.client.calls import Client
from backend.client.shapes import (
    Batch,
    Counted,
    Counts,
    Feedback,
    Item,
    Job,
    Label,
    LogLine,
    Measure,
    Model,
    Pick,
    Project,
    Pushed,
    Query,
    Round,
    Stored,
)

__all__ = [
    "Batch",
    "Client",
    "Counted",
    "Counts",
    "Feedback",
    "Item",
    "Job",
    "Label",
    "LogLine",
    "Measure",
    "Model",
    "Pick",
    "Project",
    "Pushed",
    "Query",
    "Round",
    "Stored",
]
