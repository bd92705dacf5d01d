"""Applications: whole systems on top of the streams, each in a package of its own."""
