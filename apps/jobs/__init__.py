"""Jobs: the progress of long work, told to whoever started it."""
