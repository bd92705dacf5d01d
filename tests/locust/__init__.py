"""The load test's own tests: its client, its book-keeping, and the headless profile against a real server and against
bad ones.
"""
