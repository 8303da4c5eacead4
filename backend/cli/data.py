"""nextbatch data: what models were trained on."""

import typer

app = typer.Typer(help="Compare and export the data that models were trained on.", no_args_is_help=True)
