"""Sources that hold many pictures in a file: webdataset tars, Hugging Face parquet, ArrayRecord."""

import concurrent.futures
import operator
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError, first
from nfnet_eqx.data._folder import is_litter
from nfnet_eqx.data._sources import MAX_CLASSES, Example, count_classes, first_few, one_line, read_image
from nfnet_eqx.data._tfexample import parse_example
from nfnet_eqx.images import SUFFIXES

_READERS = 16  # threads that index tars: on a network disk most of it is waiting

# tfds writes the names of the classes beside its records.
_RECORD_CLASSES = "label.labels.txt"
_MOST_NAMES = 2**22  # bytes: twenty times those of ImageNet-21k


class TarFiles:
    """Webdataset tars, read at random: their headers once (a minute for all of ImageNet), the pictures where they lie.

    A picture and its class are neighbours of one name: `n01440764_18.jpg` and `n01440764_18.cls`, the latter a number
    in digits. Other members are not looked at.

    Args:
        paths: the tars.
        name: what errors call all of them together.

    Raises:
        InputError: naming every tar that is damaged, or holds a picture without a class or a class without a picture.
    """

    classes = None

    def __init__(self, paths: Sequence[Path], name: str):
        self.name = name
        with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
            indexes, faults = zip(*pool.map(_index, paths), strict=True)
        if any(faults):
            raise InputError(first_few([fault for fault in faults if fault]))
        members = [member for index in indexes for member in index]
        self._paths = [os.fspath(path) for path in paths]
        self._file = np.repeat(np.arange(len(paths)), [len(index) for index in indexes])
        self._span = np.array([(member.offset, member.size) for member in members], np.int64).reshape(-1, 2)
        self._label = np.array([member.label for member in members], np.int32)
        # Names in one string of bytes: a million Python strings would take ten times the memory, in each worker.
        names = [os.fsencode(member.name) for member in members]
        self._names, self._name_end = b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64)
        self.num_classes = count_classes(self._label, None, name)

    def __len__(self) -> int:
        return len(self._label)

    def __getitem__(self, index: SupportsIndex) -> Example:
        index = operator.index(index)
        path, (offset, size) = self._paths[self._file[index]], self._span[index].tolist()
        end = int(self._name_end[index])
        start = int(self._name_end[index - 1]) if index else 0
        name = f"{path}:{os.fsdecode(self._names[start:end])}"
        if size == _SPARSE:
            raise InputError(f"{name}: is stored sparse, in pieces; write the tar without --sparse")
        return Example(read_image(path, name, offset, size), int(self._label[index]), name)


# In place of the size of a member that does not lie in one piece.
_SPARSE = -1


class _Member(NamedTuple):
    name: str
    offset: int
    size: int
    label: int


def _index(path: Path) -> tuple[list[_Member], str]:
    """Where the pictures of a tar lie; what is wrong with it."""
    pictures: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            whole = path.stat().st_size
            for member in tar:
                folder, file = os.path.split(member.name)
                stem, _, suffix = file.partition(".")  # webdataset's rule: up to the first dot
                key, suffix = os.path.join(folder, stem), f".{suffix.lower()}"
                # A negative size would lead back to where we were.
                if member.size < 0:
                    raise tarfile.ReadError(f"{member.name!r} claims {member.size:,} bytes")
                if member.isdir() or is_litter(file) or (suffix not in SUFFIXES and suffix != ".cls"):
                    continue
                if not member.isfile():
                    return [], f"{path}:{member.name}: is a link or device; write the tar with the files themselves"
                if not member.issparse() and member.offset_data + member.size > whole:
                    raise tarfile.ReadError(f"{member.name!r} claims {member.size:,} bytes")
                if suffix != ".cls":
                    pictures[key] = member
                    continue
                content = tar.extractfile(member).read(32)  # pyright: ignore[reportOptionalMemberAccess]
                if not content.strip().isdigit() or int(content) >= MAX_CLASSES:
                    return [], f"{path}:{member.name}: {content!r} is no class; it must be a number in digits"
                labels[key] = int(content)
    except Exception as error:  # tarfile has no one word for a damaged header: OverflowError, AttributeError, ...
        return [], f"{path}: is no tar archive, or damaged ({one_line(error)}); fetch or write it again"
    lonely = sorted(pictures.keys() ^ labels.keys())
    if lonely:
        return [], f"{path}: {len(lonely)} members lack their .cls or their picture, among them {first(lonely, 3)}"
    return [
        _Member(info.name, info.offset_data, _SPARSE if info.issparse() else info.size, labels[key])
        for key, info in pictures.items()
    ], ""


class ParquetFiles:
    """Hugging Face parquet files: a column of pictures (`image` or `img`), and one of classes (`label`).

    They are read through `datasets`, which writes a copy that can be read at random into its cache first (as large as
    the files; `HF_HOME` says where).

    Args:
        paths: the files.
        name: what errors call all of them together.

    Raises:
        InputError: `datasets` is not installed, a file is damaged, or a column is missing.
    """

    def __init__(self, paths: Sequence[Path], name: str):
        try:
            import datasets
        except ImportError:
            raise InputError(f"{name}: reading parquet needs datasets: pip install 'nfnet-eqx[hf]'") from None
        self.name = name
        try:
            _check_rows(paths)
            table = datasets.Dataset.from_parquet([os.fspath(path) for path in paths])
            columns = {"image": ("image", "img"), "label": ("label",)}
            found = {use: [name for name in names if name in table.column_names] for use, names in columns.items()}
            missing = [" or ".join(columns[use]) for use, names in found.items() if not names]
            if missing:
                there = first(table.column_names)
                raise InputError(f"{name}: no column {' and no '.join(missing)}; there are {there}")
            self._image, self._label = found["image"][0], found["label"][0]
            self._table = table.cast_column(self._image, datasets.Image(decode=False))
            feature = table.features[self._label]
            labels = np.asarray(table.with_format("numpy")[self._label][:])
        except InputError:
            raise
        except Exception as error:  # datasets has no one word for damage, and Arrow's are no public names
            reason = one_line(error.__cause__ or error)
            raise InputError(f"{name}: the parquet files are damaged ({reason}); fetch them again") from None
        self.classes = check_class_names(feature.names, name) if isinstance(feature, datasets.ClassLabel) else None
        if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
            raise InputError(f"{name}: column {self._label} holds {labels.dtype}, not whole numbers without gaps")
        self.num_classes = count_classes(labels, self.classes, name)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: SupportsIndex) -> Example:
        index = range(len(self))[index]  # an IndexError is no damage
        name = f"{self.name}[{index}]"
        try:
            row = self._table[index]
        except Exception as error:
            raise InputError(f"{name}: is damaged ({one_line(error)}); fetch the files again") from None
        if not (row[self._image] or {}).get("bytes"):
            raise InputError(f"{name}: holds no picture but a path; write the files with their pictures embedded")
        return Example(row[self._image]["bytes"], row[self._label], name)


def _check_rows(paths: Sequence[Path]) -> None:
    """Refuse files with more rows than bytes: labels, which are all read at once, may be compressed without limit."""
    import pyarrow.parquet

    for path in paths:
        rows = pyarrow.parquet.read_metadata(path).num_rows
        if not 0 <= rows <= path.stat().st_size:
            raise ValueError(f"{path.name} claims {rows:,} rows")


class ArrayRecords:
    """ArrayRecord files of `tf.train.Example`, as TensorFlow Datasets writes them: features `image` and `label`.

    Args:
        paths: the files; the names of the classes stand beside them in `label.labels.txt`, one a line.
        name: what errors call all of them together.

    Raises:
        InputError: `array_record` is not installed, a file is damaged, or there are no names of classes.
    """

    def __init__(self, paths: Sequence[Path], name: str):
        try:
            from array_record.python.array_record_data_source import ArrayRecordDataSource
        except ImportError:
            raise InputError(
                f"{name}: reading .array_record needs array_record: pip install 'nfnet-eqx[train]'"
            ) from None
        self.name = name
        names = paths[0].parent / _RECORD_CLASSES
        if not names.is_file():
            raise InputError(f"{names}: does not exist; write the names of the classes into it, one a line")
        try:
            if names.stat().st_size > _MOST_NAMES:
                raise InputError(f"{names}: is larger than {_MOST_NAMES:,} bytes; write one name a line")
            # tfds, too, ends a line at a line feed alone.
            lines = [line.strip() for line in names.read_bytes().decode().split("\n")]
        except (UnicodeDecodeError, OSError) as error:
            raise InputError(f"{names}: cannot be read as UTF-8 ({one_line(error)}); write it again") from None
        self.classes = check_class_names([line for line in lines if line], str(names))
        self.num_classes = len(self.classes)
        try:
            self._records = ArrayRecordDataSource([os.fspath(path) for path in paths])
        except Exception as error:
            reason = one_line(error)
            raise InputError(f"{name}: a file is no ArrayRecord, or damaged ({reason}); fetch it again") from None
        if not len(self._records):
            raise InputError(f"{name}: holds no pictures; name a folder that does")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        index = range(len(self))[index]
        name = f"{self.name}[{index}]"
        try:
            features = parse_example(self._records[index])
        except Exception as error:
            raise InputError(f"{name}: is damaged ({one_line(error)}); fetch the file again") from None
        image, label = features.get("image"), features.get("label")
        if not isinstance(image, bytes) or not isinstance(label, int):
            raise InputError(f"{name}: needs the features image and label, and has {first(sorted(features))}")
        if not 0 <= label < self.num_classes:
            raise InputError(f"{name}: label {label} is beyond the {self.num_classes} classes of {_RECORD_CLASSES}")
        return Example(image, label, name)
