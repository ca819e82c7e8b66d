"""Exceptions that reach a host or a plugin author.

MindhooksError
├── UnhandledCommand   no registered plugin took a dispatched command
├── PluginError        a plugin cannot be registered
└── ScorerError        a scorer could not be built, or could not answer
    ├── ScorerUnavailable  all attempts of a call failed: the next call is likely to fail too
    └── UnknownScorer      no installed scorer has the name that the settings give
"""


class MindhooksError(Exception):
    """Root of every error that mindhooks and mindscore raise on purpose."""


class UnhandledCommand(MindhooksError):  # noqa: N818 - the contract names it
    """No registered plugin answered a dispatched command."""


class PluginError(MindhooksError):
    """A plugin breaks the hook contract, or its name is taken."""


class ScorerError(MindhooksError):
    """A scorer could not be built, could not answer, or answered wrongly."""


class ScorerUnavailable(ScorerError):  # noqa: N818 - as UnhandledCommand
    """A call failed after all its attempts, for a reason that is not the call's own.

    Such as a server that is down. A flow gives up after a few in a row, instead of waiting for each
    of its calls to fail.
    """


class UnknownScorer(ScorerError):  # noqa: N818 - as UnhandledCommand
    """No installed scorer has the name that ``[server] scorer`` gives."""
