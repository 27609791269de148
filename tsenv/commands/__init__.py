"""One file a verb: `add` registers it with the parser, `main` does it."""
