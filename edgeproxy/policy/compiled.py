"""Policy modules compiled by Cython, in a cache keyed by their content: a changed source is never answered by an old build.

The interpreted module stays the source of truth; whatever is wrong with a compiled one, that is what runs.
"""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

from edgeproxy.errors import PolicyError

_SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"


def source_of(module: str, directory: Path) -> Path | None:
    """Return the source of a module beside the file; None where it lies elsewhere."""
    path = directory.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def place_of(module: str, source: Path, cache: Path) -> Path:
    """Return where the build of this very source for this very Python lies, if there is one."""
    key = hashlib.sha256(b"\0".join((source.read_bytes(), module.encode(), _SUFFIX.encode()))).hexdigest()[:32]
    return cache / key / f"{module.rpartition('.')[2]}{_SUFFIX}"


def load_compiled(module: str, directory: Path, cache: Path | None) -> ModuleType | None:
    """Return the compiled module; None where there is none that fits the source, or it does not load."""
    source = source_of(module, directory) if cache else None
    if cache is None or source is None:
        return None
    place = place_of(module, source, cache)
    if not place.is_file():
        return None
    try:
        loader = importlib.machinery.ExtensionFileLoader(module, str(place))
        spec = importlib.util.spec_from_file_location(module, place, loader=loader)
        if spec is None:
            return None
        made = importlib.util.module_from_spec(spec)
        sys.modules[module] = made
        loader.exec_module(made)
    except Exception:
        sys.modules.pop(module, None)
        return None
    return made


def compile_module(module: str, directory: Path, cache: Path) -> Path:
    """Compile one module into the cache and return its place; raise `PolicyError` where that cannot be."""
    source = source_of(module, directory)
    if source is None:
        raise PolicyError(f"policy module {module}: no source beside the file")
    place = place_of(module, source, cache)
    if place.is_file():
        return place
    try:
        # An extra: whoever compiles nothing needs neither.
        build_extensions = importlib.import_module("Cython.Build").cythonize
        distribution_of = importlib.import_module("setuptools").Distribution
    except ImportError as error:
        raise PolicyError(f"compiling needs the extra `compile`: pip install 'edgeproxy[compile]' ({error.name} is missing)") from error
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{module.rpartition('.')[2]}.py"
        shutil.copyfile(source, copy)
        try:
            extensions = build_extensions([str(copy)], language_level=3, quiet=True, build_dir=folder)
            distribution = distribution_of({"ext_modules": extensions})
            build = distribution.get_command_obj("build_ext")
            build.build_lib = build.build_temp = folder
            build.ensure_finalized()
            build.run()
        except (Exception, SystemExit) as error:
            raise PolicyError(f"{source}: cannot be compiled: {error}") from error
        built = next(Path(folder).rglob(f"*{_SUFFIX}"))
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Renamed into place: a process that starts meanwhile finds all of it or nothing.
        part = place.with_suffix(".part")
        shutil.copyfile(built, part)
        part.rename(place)
    return place
