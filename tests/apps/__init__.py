"""The applications, end to end: each over real sockets, on both databases, alone and on two nodes."""
