"""tsenv: a virtualenv for the tailnet. `tsenv.up(…)` from Python: see tsenv/api.py."""

TYPE_CHECKING = False  # type checkers take it for true; the module typing is too dear for `tsenv exec`
if TYPE_CHECKING:
    from tsenv.api import Peer, Session, TsenvError, attach, up

__version__ = "0.1.0"
__all__ = ["Peer", "Session", "TsenvError", "__version__", "attach", "up"]


def __getattr__(name: str) -> object:
    """The Python API, loaded when it is used: `import tsenv` is on the way of every command and prompt."""
    if name in __all__:
        from tsenv import api

        return getattr(api, name)
    raise AttributeError(f"module 'tsenv' has no attribute {name!r}")
