"""Every exception that edgeproxy raises on purpose."""


class EdgeProxyError(Exception):
    """Base of all errors of edgeproxy; its text is meant for the operator."""


class ConfigError(EdgeProxyError):
    """The configuration file is wrong; the text has one line for each fault."""


class BindError(EdgeProxyError):
    """A listener's address cannot be had."""


class EngineError(EdgeProxyError):
    """The native engine cannot start for a reason outside the configuration."""
