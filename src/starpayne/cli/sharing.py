"""``starpayne push`` and ``starpayne pull``, and the model that a command is given: a folder, or one on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from starpayne.cli.app import Json, console, write_result

if TYPE_CHECKING:
    from starpayne.bundle import Model
    from starpayne.sharing import Pulled

Endpoint = Annotated[str | None, typer.Option(metavar="URL", help="Another hub; by default that of HF_ENDPOINT.")]


def register(app: typer.Typer) -> None:
    app.command()(push)
    app.command()(pull)


def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository, made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="What the commit says.")] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to push to, made if it is not there.")
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="A new name for this revision, such as v1.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", metavar="SPDX", help="Such as MIT or CC-BY-4.0.")
    ] = None,
    author: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Whom the card names; once for each author.")
    ] = None,
    endpoint: Endpoint = None,
    json: Json = None,
) -> None:
    """Share a model on the Hugging Face Hub, with a model card made of what starpayne info knows of it.

    Needs pip install "starpayne[hub]" and a login: hf auth login, or a token in HF_TOKEN.

    Example: starpayne push my.model ada/sun-emulator --licence CC-BY-4.0 --author "Ada Lovelace"
    """
    from starpayne import sharing

    if licence is None:
        console.print(
            "note: no licence is stated, so nobody knows what the model may be used for: --licence", style="yellow"
        )
    done = sharing.push(
        model, repo, private=private, message=message, revision=revision, tag=tag, licence=licence,
        authors=author or [], endpoint=endpoint,
    )  # fmt: skip
    typer.echo(f"{done.repo}: commit {done.commit}, digest {done.digest}")
    typer.echo(f"to get exactly this model: starpayne pull {done.pinned} --out MODEL")
    facts = {"repo": done.repo, "commit": done.commit, "digest": done.digest, "sha256": done.sha256}
    write_result(json, facts)


def pull(
    address: Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help="Branch, tag or full commit hash.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="MODEL", help="Model folder to make; by default the cache only.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use the cache only, never the network.")] = False,
    endpoint: Endpoint = None,
    json: Json = None,
) -> None:
    """Get a model from the Hugging Face Hub, and verify it: checksums, shapes, a stored spectrum computed once more.

    Needs pip install "starpayne[hub]". A commit hash that is in the cache needs no network.

    Example: starpayne pull ada/sun-emulator@v1 --out sun.model
    """
    from starpayne import sharing

    done = sharing.pull(address, out, offline=offline, endpoint=endpoint)
    found = done.verification
    typer.echo(f"{done.repo}: commit {done.commit}, digest {found.digest}")
    typer.echo(f"{out}: verified" if out else f"verified; in the cache: use it as --model hf://{done.pinned}")
    _suggest_pin(sharing.Address.parse(address), done)
    write_result(
        json, {"repo": done.repo, "commit": done.commit, "model": str(out) if out else None, **found.to_dict()}
    )


def load_model(where: Path | None) -> Model:
    """Return the model that a command was given, or mgb; of a hub, say which commit it is if that may change."""
    from starpayne import bundle, sharing

    address = sharing.hub_address(where)
    if address is None:
        return bundle.load(where)
    pulled = sharing.pull(str(address))
    _suggest_pin(address, pulled)
    return pulled.model


def _suggest_pin(address: object, pulled: Pulled) -> None:
    if str(address) != pulled.pinned:
        console.print(
            f"{address} is now {pulled.commit}; write hf://{pulled.pinned} to get the same model always",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
