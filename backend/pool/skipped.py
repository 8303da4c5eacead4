"""What a listing leaves out, counted by reason: nothing is lost in silence."""

from collections import Counter, defaultdict

_PLACES = 5


class Skipped:
    """What was left out so far: how much for which reason, and where the first ones are."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, place: str) -> None:
        """Count one more; `place` is its address, or its line in a manifest."""
        self.counts[reason] += 1
        if len(self._places[reason]) < _PLACES:
            self._places[reason].append(place if len(place) <= 100 else f"…{place[-99:]}")

    def lines(self) -> list[str]:
        """One a reason, for people."""
        return [
            f"left out {count}: {reason} ({', '.join(self._places[reason])}{', …' if count > _PLACES else ''})"
            for reason, count in self.counts.most_common()
        ]
