"""Commands; the composition root: the only package that sees both master and worker."""
