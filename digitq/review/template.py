"""What all pages share: the head, the style and the script."""

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

TEMPLATES = Path(__file__).parent


def fill_template(template: str, **values: Any) -> str:
    """A page with its script and style. Text among the values is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    script = "\n" + (TEMPLATES / "page.js").read_text(encoding="utf-8")
    script_hash = f"sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        script=Markup(script), script_hash=script_hash, style=Markup(style), **values
    )
