"""Refusals of the stream and of the statistics, which clients of the seed know in another form.

Owns the two fields that such a client reads. The product's own (handlers/answers.py) come first and stay as they are.
Must never know who is refused, or why.
"""

from __future__ import annotations

from http import HTTPStatus

from handlers.answers import Refused


def in_both_forms(refused: Refused) -> Refused:
    """The same refusal, with `error` and `message` in its body."""
    refused.beside = {"error": HTTPStatus(refused.status).phrase, "message": refused.reason}
    return refused
