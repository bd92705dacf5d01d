"""What both Python peers ask of a token: a valid signature, checked anew on each connection."""

from __future__ import annotations

import argparse

import jwt


def arguments() -> argparse.Namespace:
    """The command line that both Python peers share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--heartbeat-seconds", type=float, default=30)
    parser.add_argument("--jwt-secret", default="")
    return parser.parse_args()


def is_allowed(authorization: str, secret: str) -> bool:
    """True without a secret, else when the bearer token is signed with it."""
    if not secret:
        return True
    try:
        jwt.decode(authorization.removeprefix("Bearer "), secret, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        return False
    return True
