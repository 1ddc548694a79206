"""Every command of ``occluscope``: those that serve, and those that ask a running service."""

import typer

from service.cli import asking, keys, parts, serving

app = typer.Typer(
    name="occluscope",
    help="Measures what a vision model looks at and what it does not care about.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for serve in (serving.up, serving.serve, serving.worker, serving.reconcile, serving.migrate):
    app.command(rich_help_panel="Serve")(serve)
for ask in (
    asking.submit,
    asking.jobs,
    asking.show,
    asking.download,
    asking.cancel,
    asking.delete,
    asking.webhook_secret,
    asking.models,
    asking.analyses,
):
    app.command(rich_help_panel="Ask a running service")(ask)
app.add_typer(keys.app, name="keys", rich_help_panel="Serve")
app.add_typer(parts.app, name="parts", rich_help_panel="Prepare")
