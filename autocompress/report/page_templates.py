"""Templates of the report's pages and sections."""

from __future__ import annotations

from importlib import resources

import jinja2


def page_template(name: str) -> jinja2.Template:
    """A template of the folder `templates`; values are escaped, and a name that is not given is an error."""
    text = resources.files("autocompress.report").joinpath("templates", name).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(text)
