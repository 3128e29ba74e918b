"""The command `nfnet-eqx`: one small file a subcommand."""

from nfnet_eqx.cli._main import main

__all__ = ["main"]
