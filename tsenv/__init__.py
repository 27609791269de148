"""tsenv: a virtualenv for the tailnet."""

__version__ = "0.1.0"
