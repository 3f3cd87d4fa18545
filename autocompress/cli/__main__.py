"""Entry point of `python -m autocompress.cli`."""

from __future__ import annotations

from autocompress.cli.commands import main

if __name__ == "__main__":
    main()
