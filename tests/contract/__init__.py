"""Every sentence of docs/contract.md, shown on a running server by a test whose docstring begins with the sentence's
number.
"""
