"""The engine: from a published event to every reader's socket."""
