"""Load tests with Locust: users that hold event streams, users that publish, and a headless profile with thresholds.

Run them with `python -m benchmarks.locust.profile`, or hand `benchmarks/locust/locustfile.py` to Locust;
docs/load-testing.md says how.
"""
