"""The command line's commands besides `serve`: each module holds one under its own name, or what several share."""
