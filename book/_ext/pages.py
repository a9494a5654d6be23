"""What this book adds to a page, and what it refuses.

An output image without alternative text is a warning, and so, with ``-W``, an error: its default would
be the file's name. The script of Thebe (live cells over the network) is left out of every page.
"""

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def check_alternative_text(app, doctree):
    """Warn about images without alternative text, those that notebooks put out included."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            where = image.get("uri") or app.env.docname
            logger.warning("image without alternative text: %s", where, location=image)


def drop_thebe(app, pagename, templatename, context, doctree):
    """Remove Thebe's scripts and styles, files and inline ones, from the page."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context.get(kind, []) if "thebe" not in described(file)]


def described(file):
    """Return what Sphinx knows of a script or style: its name and, if it is inline, its text."""
    return f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', '')}".lower()


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", check_alternative_text)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True}
