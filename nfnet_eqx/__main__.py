"""`python -m nfnet_eqx` is `nfnet-eqx`."""

from nfnet_eqx.cli import console_main

console_main()
