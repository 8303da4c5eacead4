"""Check a live set-up in both directions: what is wrong, why it matters, and what mends it."""

from backend.doctor.examination import examine
from backend.doctor.finding import Finding

__all__ = ["Finding", "examine"]
