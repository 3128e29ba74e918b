"""The command `nfnet-eqx`: one small file a subcommand."""

from nfnet_eqx.cli._main import main
from nfnet_eqx.cli._process import console_main

__all__ = ["console_main", "main"]
