"""Settings: typed, validated, documented in place.

Knows nothing of the rest of Ringcast; everything else may import it.
"""
