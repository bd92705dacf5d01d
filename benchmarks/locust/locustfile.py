"""What Locust loads: the users, the options and the thresholds. Run Locust from the repository's root."""

from benchmarks.locust import options, thresholds
from benchmarks.locust.users import Publisher, Reader

__all__ = ["Publisher", "Reader", "options", "thresholds"]
