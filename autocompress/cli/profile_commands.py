"""`autocompress profile`: list, show, validate and detect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Device profiles.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("list")
def list_() -> None:
    """List the names of the shipped profiles, and what each is for."""
    from rich.console import Console
    from rich.table import Table

    from autocompress.core.profile import load_profile, shipped_profiles

    table = Table("profile", "for", "budgets", box=None, pad_edge=False, header_style="bold")
    for name in shipped_profiles():
        profile = load_profile(name)
        table.add_row(name, profile.description, ", ".join(map(str, profile.budgets)))
    Console(highlight=False).print(table)


@app.command()
def show(profile: Annotated[str, typer.Argument(metavar="PROFILE", help="File or name.")]) -> None:
    """Show a profile's file as it is."""
    from autocompress.core.profile import load_profile, shipped_profiles

    load_profile(profile)
    path = Path(profile) if Path(profile).is_file() else shipped_profiles()[profile]
    typer.echo(path.read_text(encoding="utf-8").rstrip())


@app.command()
def validate(profile: Annotated[str, typer.Argument(metavar="PROFILE", help="File or name.")]) -> None:
    """Check a profile, and tell whether this machine is the one that it describes."""
    from autocompress.core.profile import load_profile
    from autocompress.devices import device_of
    from autocompress.runtimes import runtime_of

    target = load_profile(profile)
    # an unknown runtime or connection is an error in the profile
    machine = device_of(target, runtime_of(target)).machine()
    fingerprint = target.device.fingerprint
    mismatches = fingerprint.mismatches(machine) if fingerprint else []
    typer.echo(f"{target.name}: valid; budgets {', '.join(map(str, target.budgets)) or 'none'}")
    typer.echo(f"this machine is another: {'; '.join(mismatches)}" if mismatches else f"fits this machine: {machine}")


@app.command()
def detect(
    out: Annotated[Path | None, typer.Option("--out", help="Write it there.", metavar="FILE")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the profile.")] = "detected",
) -> None:
    """Describe the present machine as a profile: CPU, cores, memory, int8 dot product, bf16."""
    from autocompress.core.profile import detected_profile, load_profile
    from autocompress.devices import device_of
    from autocompress.runtimes import runtime_of
    from autocompress.system.workspace import write_text

    local = load_profile("local")
    text = detected_profile(device_of(local, runtime_of(local)).machine(), name)
    if out is None:
        typer.echo(text.rstrip())
    else:
        write_text(out, text)
        typer.echo(f"wrote {out}")
