"""Tests of applications. Those of `monitors` are not collected yet: it is not finished, and off by default."""

collect_ignore_glob = ["test_monitors_*"]
