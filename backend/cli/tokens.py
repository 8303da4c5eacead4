"""nextbatch tokens: who may call the API."""

import json
from typing import Annotated

import typer

from backend.cli.progress import say

app = typer.Typer(help="Make, list and revoke tokens of the API.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the token is called, such as the program that uses it.")]


@app.command()
def create(
    name: Name,
    scope: Annotated[
        str, typer.Option(help="read; label: push, ask and label too; admin: make projects too.")
    ] = "read",
    days: Annotated[int | None, typer.Option(min=1, help="Valid so long; default: until it is revoked.")] = None,
) -> None:
    """Print a new token. It is shown this once: only its hash is kept."""
    from backend import tokens
    from backend.database import transaction

    known = next((one for one in tokens.SCOPES if one == scope), None)
    if known is None:
        raise typer.BadParameter(f"choose one of {', '.join(tokens.SCOPES)}", param_hint="--scope")
    with transaction() as session:
        secret = tokens.create(session, name, known, days)
    say("Send it as `Authorization: Bearer …`. From now on the API answers nobody without credentials.")
    print(secret)


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List tokens, without their secrets."""
    from backend import tokens
    from backend.database import reading

    with reading() as session:
        found = tokens.tokens(session)
    rows = [
        {
            "name": one.name,
            "scope": one.scope,
            "state": "valid" if tokens.is_valid(one) else "revoked" if one.revoked_at else "expired",
            "created_at": one.created_at.isoformat(timespec="seconds"),
            "expires_at": one.expires_at.isoformat(timespec="seconds") if one.expires_at else None,
        }
        for one in found
    ]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        until = f"until {row['expires_at']}" if row["expires_at"] else "without end"
        print(f"{row['name']:<24} {row['scope']:<6} {row['state']:<8} made {row['created_at']}  {until}")
    if not rows:
        print("no tokens: the API asks for basic credentials, or for nothing where none are set")


@app.command()
def revoke(name: Name) -> None:
    """Let a token open nothing any more, at once."""
    from backend import tokens
    from backend.database import transaction

    with transaction() as session:
        tokens.revoke(session, name)
    print(f"{name} is revoked")
