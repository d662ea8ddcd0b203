"""The database that the configuration names."""

import os
from pathlib import Path

from edgeproxy.config.root import Config

_SQLITE = "sqlite:///"


def database_url(config: Config) -> str:
    """Return the URL of the database: that of `EDGEPROXY_DATABASE` if it is set; a relative SQLite file lies in the state directory."""
    url = os.environ.get("EDGEPROXY_DATABASE") or config.install.database
    if url.startswith(_SQLITE) and not url.startswith(f"{_SQLITE}/"):
        file = url.removeprefix(_SQLITE)
        return f"{_SQLITE}{Path(config.install.state_directory).resolve() / file}"
    return url
