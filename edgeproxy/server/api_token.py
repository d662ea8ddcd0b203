"""The token of the management API."""

from pathlib import Path

from edgeproxy.errors import ConfigError

LEAST = 16


def read_token(path: str) -> str:
    """Return the token in the file at `path`; raise `ConfigError` where there is none worth the name."""
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api.token_file: cannot be read: {error}") from error
    if len(token) < LEAST:
        raise ConfigError(f"api.token_file: expected a token of {LEAST} characters or more in {path}")
    return token
