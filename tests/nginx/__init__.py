"""config/nginx with a real nginx before real nodes: what a client gets through it, also while either is away."""
