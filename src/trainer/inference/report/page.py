"""Pages for the browser that need nothing else: every text is escaped, and no script and no request is allowed."""

from typing import Any

from trainer.inference.report.plots import DARK, LIGHT


def render_page(name: str, title: str, **values: Any) -> str:
    """The page `pages/<name>.html.jinja`. A value that it lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("trainer.inference.report", "pages")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template(f"{name}.html.jinja").render(title=title, light=LIGHT, dark=DARK, **values)


def trusted(svg: str) -> Any:
    """A plot of ours, which is put into a page as it is."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704  # made by plots.py from numbers alone
