"""The automatic choice among strategies: forecasts and successive halving, on labels that exist already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.forecast import Forecast, forecast


@dataclass(frozen=True)
class Decision:
    """What the agent does after a rung.

    kept: arms that go on, the best forecast first. dropped: why, by arm. stop: why nothing needs to go on, or "".
    """

    kept: tuple[str, ...]
    dropped: Mapping[str, str]
    forecasts: Mapping[str, Forecast]
    stop: str

    @property
    def best(self) -> str:
        return self.kept[0]


@dataclass(frozen=True)
class Agent:
    """Predictive-based successive halving early-stop (PSHEA), dropping an arm only where intervals separate.

    An arm whose curve so far lies, in the mean, at least as high as that of the arm with the best forecast stays: a
    forecast from few steps says less than the steps themselves.

    budget: labels that may be spent on the job. target: accuracy at which to stop, None for none. convergence: the
    gain still forecast to the end of the budget below which more labels are not worth it.

    Huang, Li, et al., *Active-Learning-as-a-Service*, 2022, 2207.09109v2, section on the agent. The original spends
    labels on each arm and always drops the worse half; here arms are replayed on the same labels.
    """

    budget: int
    target: float | None = None
    convergence: float = 0.0

    def decide(self, labels: Sequence[int], accuracy: Mapping[str, NDArray[np.float64]]) -> Decision:
        """After the steps `labels`, with accuracies (seeds, steps) of every arm that is still in."""
        forecasts = {name: forecast(labels, curves, self.budget) for name, curves in accuracy.items()}
        ranked = sorted(forecasts, key=lambda name: (-forecasts[name].accuracy, name))
        best = forecasts[ranked[0]]
        half = (len(ranked) + 1) // 2
        so_far = {name: float(curves.mean()) for name, curves in accuracy.items()}
        dropped = {
            name: (
                f"its forecast for {self.budget} labels, {forecasts[name].accuracy:.1%} (at most "
                f"{forecasts[name].interval[1]:.1%}), lies below that of {ranked[0]} (at least {best.interval[0]:.1%})"
            )
            for name in ranked[half:]
            if forecasts[name].interval[1] < best.interval[0] and so_far[name] < so_far[ranked[0]]
        }
        kept = tuple(name for name in ranked if name not in dropped)
        return Decision(kept, dropped, forecasts, self._stop(labels, accuracy, forecasts, kept))

    def _stop(
        self,
        labels: Sequence[int],
        accuracy: Mapping[str, NDArray[np.float64]],
        forecasts: Mapping[str, Forecast],
        kept: tuple[str, ...],
    ) -> str:
        best = kept[0]
        now = float(accuracy[best].mean(axis=0)[-1])
        if labels[-1] >= self.budget:
            return f"the budget of {self.budget} labels is spent"
        if self.target is not None and now >= self.target:
            return f"{best} reached the target of {self.target:.1%} with {labels[-1]} labels"
        if len(kept) == 1 and len(accuracy) > 1:
            return f"only {best} is left"
        gain = forecasts[best].accuracy - now
        if self.convergence > 0 and gain < self.convergence:
            return f"the {self.budget - labels[-1]} labels left would gain {gain:.1%}"
        return ""
