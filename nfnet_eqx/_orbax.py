"""Orbax, imported in one place."""

from nfnet_eqx._logging import root_logger_kept

with root_logger_kept():
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy

__all__ = ["ocp", "preservation_policy"]
