"""Where the arrays live: a mesh of one axis over all devices, parameters replicated or sharded over it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

AXIS = "data"
BATCH = PartitionSpec(AXIS)
REPLICATED = PartitionSpec()

# Smaller arrays are not worth a collective.
_SMALLEST_SHARDED = 1024


def make_mesh() -> Mesh:
    """All devices of all hosts on one axis. Auto: under explicit axes XLA would refuse sharded convolution weights."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def partition_specs(tree: PyTree, mesh: Mesh, *, fsdp: bool) -> PyTree:
    """How each array of a tree is laid out: replicated, or under FSDP cut along its largest divisible dimension.

    The rule looks at an array's shape alone, so that a parameter, its momentum and its average are cut alike.
    """
    return jax.tree.map(lambda leaf: _spec(leaf.shape, mesh.size) if fsdp else REPLICATED, tree)


def shardings(specs: PyTree, mesh: Mesh) -> PyTree:
    """The same as shardings on `mesh`."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=_is_spec)


def laid_out(shapes: PyTree, specs: PyTree, mesh: Mesh) -> PyTree:
    """Shapes that say where their arrays are, or are to be."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings(specs, mesh),
    )


def put(tree: PyTree, specs: PyTree, mesh: Mesh) -> PyTree:
    """Copies of arrays that every host has, laid out over the mesh."""

    def place(leaf: Array | np.ndarray, spec: PartitionSpec) -> Array:
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, NamedSharding(mesh, spec), lambda index: values[index])

    return jax.tree.map(place, tree, specs)


def put_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """A global batch out of this host's part of it."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def gather(tree: PyTree, specs: PyTree) -> PyTree:
    """Inside `shard_map`: every array whole, and this device's own to differentiate."""

    def whole(leaf: Array, spec: PartitionSpec) -> Array:
        dimension = _sharded_dimension(spec)
        if dimension is None:
            return jax.lax.pcast(leaf, AXIS, to="varying")
        return jax.lax.all_gather(leaf, AXIS, axis=dimension, tiled=True)

    return jax.tree.map(whole, tree, specs)


def reduce_mean(tree: PyTree, specs: PyTree) -> PyTree:
    """Inside `shard_map`, `gather`'s way back: the mean over the devices, laid out as the parameters are."""

    def mean(leaf: Array, spec: PartitionSpec) -> Array:
        dimension = _sharded_dimension(spec)
        if dimension is None:
            return jax.lax.pmean(leaf, AXIS)
        total = jax.lax.psum_scatter(leaf, AXIS, scatter_dimension=dimension, tiled=True)
        return total / jnp.asarray(jax.lax.axis_size(AXIS), leaf.dtype)

    return jax.tree.map(mean, tree, specs)


def _spec(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    divisible = [d for d, size in enumerate(shape) if size % devices == 0]
    if np.prod(shape) < _SMALLEST_SHARDED or not divisible:
        return REPLICATED
    largest = max(divisible, key=lambda d: shape[d])
    return PartitionSpec(*(AXIS if d == largest else None for d in range(largest + 1)))


def _sharded_dimension(spec: PartitionSpec) -> int | None:
    return next((d for d, axis in enumerate(spec) if axis is not None), None)


def _is_spec(leaf: object) -> bool:
    return isinstance(leaf, PartitionSpec)
