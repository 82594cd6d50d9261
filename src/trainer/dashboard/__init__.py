"""The studio's pages. Each is a function of run files, and stands in a module and a template of its own.

To add a page, write `dashboard/NAME.py` with

- handlers: `def show(request: Request) -> Response`, a plain function, which runs in a thread and may wait; it returns
  `render(request, "NAME.html.jinja", title=…, …)` of `trainer.web.app`, and raises `Problem` or any TrainerError;
- `ROUTES`: a tuple of `Route(path, handler, access)`, whose access is the policy that the app enforces;
- `LINK`: a `Link(title, path)`, where the page belongs to the navigation;
- `TAB`: a `Tab(title, name)` of `trainer.dashboard.run`, where it is a tab of a run. Its handler at `/runs/{name}/TAB`
  returns `run_page(request, run, TAB, "NAME.html.jinja", …)`, whose template extends `run_frame.html.jinja` and fills
  the block `tab`. Where the tab is live, its stream returns `run_stream(request, run, feed)`, and `run_page` gets the
  stream's address and the feed's cursor.

Its template in `dashboard/templates/` extends `layout.html.jinja`; scripts and styles of its own stand in
`dashboard/static/`. Then add the module's name to `PAGES` below. Tests of the security of all routes find it there.
"""

from importlib import import_module

from trainer.dashboard.run import TABS
from trainer.web.routes import Link, Route

PACKAGE = "trainer.dashboard"
# In the order of the navigation and of a run's tabs; the first one with a link is the home page.
PAGES = (
    "runs",
    "compare",
    "run",
    "run_actions",
    "run_logs",
    "run_metrics",
    "run_checkpoints",
    "run_report",
    "run_files",
    "new_run",
    "queue",
    "datasets.generate_page",  # before the pages of files, whose addresses would take its own for a file's
    "datasets.page",
    "playground.page",
    "deployments.page",
)

_modules = [import_module(f"{PACKAGE}.{name}") for name in PAGES]
ROUTES: tuple[Route, ...] = tuple(route for module in _modules for route in module.ROUTES)
TABS[:] = [module.TAB for module in _modules if hasattr(module, "TAB")]
NAVIGATION: tuple[Link, ...] = tuple(module.LINK for module in _modules if hasattr(module, "LINK"))
