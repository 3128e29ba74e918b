"""Pictures to learn from: sources, decoding, augmentation, and the stream of batches."""

from nfnet_eqx._errors import InputError
from nfnet_eqx._logging import root_logger_kept

try:
    with root_logger_kept():
        import cv2 as _cv2  # noqa: F401
        import grain as _grain  # noqa: F401
except ImportError as error:
    raise InputError(f"nfnet_eqx.data needs {error.name}: pip install 'nfnet-eqx[train]'") from None

from nfnet_eqx.data._augment import Augment
from nfnet_eqx.data._folder import ImageFolder
from nfnet_eqx.data._mix import mix
from nfnet_eqx.data._open import open_source
from nfnet_eqx.data._shards import ArrayRecords, ParquetFiles, TarFiles
from nfnet_eqx.data._sources import Arrays, Example, Source
from nfnet_eqx.data._stream import Batch, EvalBatch, check_readable, decode, eval_stream, train_stream

__all__ = [
    "ArrayRecords",
    "Arrays",
    "Augment",
    "Batch",
    "EvalBatch",
    "Example",
    "ImageFolder",
    "ParquetFiles",
    "Source",
    "TarFiles",
    "check_readable",
    "decode",
    "eval_stream",
    "mix",
    "open_source",
    "train_stream",
]
