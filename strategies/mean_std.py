"""Largest spread of the heads."""

from dataclasses import dataclass

from strategies import kernels
from strategies.contract import Needs, Request
from strategies.pointwise import Pointwise, Scores
from strategies.registry import register


@register("mean_std")
@dataclass(frozen=True)
class MeanStd(Pointwise):
    """Pick the items on whose probabilities the heads differ most.

    Utility is the mean over classes of the standard deviation over heads, in [0, 1/2], from samples (T, n, K).
    With many classes it is small for all, as the mean is over classes that nobody thinks of; see `bald`.

    Kampffmeyer, Salberg & Jenssen, *Semantic segmentation of small objects and modeling of uncertainty in urban
    remote sensing images using deep convolutional neural networks*, CVPR workshops 2016.
    """

    needs = Needs.SAMPLES

    def score(self, request: Request) -> Scores:
        assert request.samples is not None
        spread = kernels.deviation(request.samples)
        return Scores(spread, "the heads' probabilities differ by {spread:.2g} on average", {"spread": spread})
