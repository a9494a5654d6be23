"""Re-execute a notebook when the part of nnbrain that it imports has changed.

The execution cache knows a notebook by its code cells only. This extension remembers, for each notebook,
a digest of the package files that it imports, directly or through each other; where the digest differs
from the last build's, it drops the notebook from the cache and has Sphinx read it again.
"""

import ast
import hashlib
import json
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache

ROOT = Path(__file__).parents[2]


def imported_modules(source):
    """Return the dotted names of the nnbrain modules that Python source may import."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "nnbrain"}


def files_of(module):
    """Return the files that importing the dotted name runs: the module's and its packages'."""
    parts = module.split(".")
    candidates = [ROOT.joinpath(*parts[: i + 1], "__init__.py") for i in range(len(parts))]
    candidates.append(ROOT.joinpath(*parts).with_suffix(".py"))
    return {path for path in candidates if path.is_file()}


def package_files(source):
    """Return all nnbrain files that the source depends on, following their imports."""
    found, todo = (
        set(),
        set().union(*map(files_of, imported_modules(source)), set()),
    )
    while todo:
        path = todo.pop()
        found.add(path)
        for module in imported_modules(path.read_text(encoding="utf-8")):
            todo |= files_of(module) - found
    return found


def code_of(notebook):
    """Return a notebook's Python as one text; magics and shell lines become the calls they stand for."""
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    return "\n".join(TransformerManager().transform_cell(source) for source in cells)


def digest(notebook):
    """Return a digest of the package files a notebook depends on; command-line use counts as all."""
    code = code_of(notebook)
    files = package_files(code)
    if '"-m"' in code:  # python -m nnbrain.… in another process
        files = set((ROOT / "nnbrain").rglob("*.py"))
    text = b"".join(path.relative_to(ROOT).as_posix().encode() + path.read_bytes() for path in sorted(files))
    return hashlib.sha256(text).hexdigest()


def outdated(app, env, added, changed, removed):
    """Drop notebooks whose digest differs from the cache; return those that Sphinx has to read again.

    Two digests are kept of each: "executed", that of what the cache holds or will, and "built", that of
    the last build that succeeded. After a failed build the cache is good, and the pages are not.
    """
    record = Path(app.outdir).parent / "dependencies.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    notebooks = {name: Path(env.doc2path(name)) for name in env.found_docs}
    now = {name: digest(path) for name, path in notebooks.items() if path.suffix == ".ipynb"}
    executed, built = before.get("executed", {}), before.get("built", {})
    stale = {str(notebooks[name].resolve()) for name in now if executed.get(name) != now[name]}
    cache_path = Path(app.outdir).parent / ".jupyter_cache"
    if stale and cache_path.is_dir():
        cache = get_cache(cache_path)
        for entry in cache.list_cache_records():
            if str(Path(entry.uri).resolve()) in stale:
                cache.remove_cache(entry.pk)
    record.write_text(json.dumps({"executed": now, "built": built}, indent=1), encoding="utf-8")
    app.nnbrain_dependencies = record, now
    return {name for name in now if built.get(name) != now[name]}


def remember(app, error):
    """Note that the pages of this build, which succeeded, belong to the present package."""
    if error is None and hasattr(app, "nnbrain_dependencies"):
        record, now = app.nnbrain_dependencies
        record.write_text(json.dumps({"executed": now, "built": now}, indent=1), encoding="utf-8")


def setup(app):
    """Register with Sphinx."""
    app.connect("env-get-outdated", outdated)
    app.connect("build-finished", remember)
    return {"parallel_read_safe": True}
