"""Every kind of source: what it holds, what it is called, that it can be sent to a worker; and what it refuses."""

import gzip
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import ArrayRecords, Arrays, ImageFolder, ParquetFiles, Source, TarFiles, decode, open_source
from tests.pipeline.conftest import jpeg

WriteTar = Callable[..., Path]


def check(source: Source, jpegs: Sequence[bytes], labels: Sequence[int], names: Sequence[str]):
    """The source, and its copy in another process, hold these pictures."""
    assert isinstance(source, Source)
    for this in (source, pickle.loads(pickle.dumps(source))):
        assert len(this) == len(labels)
        examples = [this[index] for index in range(len(this))]
        assert [example.label for example in examples] == list(labels)
        assert [example.image for example in examples] == list(jpegs)
        assert [example.name for example in examples] == list(names)
        assert all(this[np.uint8(index)] == examples[index] for index in range(len(this)))
        with pytest.raises(IndexError):
            _ = this[len(this)]
        assert this.num_classes == max(labels) + 1


def write_parquet(path: Path, jpegs: Sequence[bytes], labels: Sequence[int], *, names: Sequence[str] | None = None):
    datasets = pytest.importorskip("datasets")
    label = datasets.Value("int64") if names is None else datasets.ClassLabel(names=list(names))
    features = datasets.Features({"image": datasets.Image(), "label": label})
    rows = {"image": [{"bytes": data, "path": None} for data in jpegs], "label": list(labels)}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def tf_example() -> type:
    """`tf.train.Example`, made by protobuf itself from its published schema."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="nfnet_eqx_example.proto", package="nfnet_eqx_tests", syntax="proto3"
    )

    def message(parent, name, *fields):
        made = parent.message_type.add(name=name) if parent is file else parent.nested_type.add(name=name)
        for number, (label, kind, type_name, field_name) in enumerate(fields, 1):
            made.field.add(name=field_name, number=number, label=label, type=kind, type_name=type_name)
        return made

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    scope = ".nfnet_eqx_tests"
    message(file, "BytesList", (many, field.TYPE_BYTES, None, "value"))
    message(file, "FloatList", (many, field.TYPE_FLOAT, None, "value"))
    message(file, "Int64List", (many, field.TYPE_INT64, None, "value"))
    lists = (("BytesList", "bytes_list"), ("FloatList", "float_list"), ("Int64List", "int64_list"))
    message(file, "Feature", *((one, field.TYPE_MESSAGE, f"{scope}.{kind}", name) for kind, name in lists))
    features = message(file, "Features", (many, field.TYPE_MESSAGE, f"{scope}.Features.FeatureEntry", "feature"))
    entry = message(
        features,
        "FeatureEntry",
        (one, field.TYPE_STRING, None, "key"),
        (one, field.TYPE_MESSAGE, f"{scope}.Feature", "value"),
    )
    entry.options.map_entry = True
    message(file, "Example", (one, field.TYPE_MESSAGE, f"{scope}.Features", "features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nfnet_eqx_tests.Example"))


def write_records(path: Path, jpegs: Sequence[bytes], labels: Sequence[int], classes: str | None = "cat\ndog\nowl\n"):
    writer_module = pytest.importorskip("array_record.python.array_record_module")
    make = tf_example()
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = writer_module.ArrayRecordWriter(str(path), "group_size:1")
    for data, label in zip(jpegs, labels, strict=True):
        example = make()
        example.features.feature["image"].bytes_list.value.append(data)
        example.features.feature["label"].int64_list.value.append(label)
        example.features.feature["file_name"].bytes_list.value.append(b"n01440764_18.JPEG")
        example.features.feature["weights"].float_list.value.extend([1.0, 2.0])
        writer.write(example.SerializeToString())
    writer.close()
    if classes is not None:
        (path.parent / "label.labels.txt").write_text(classes)


def write_idx(path: Path, array: np.ndarray):
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


LABELS = [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_folder_of_class_folders(class_folder: Path, jpegs: list[bytes]):
    (class_folder / "a" / "notes.txt").write_text("not a picture")
    (class_folder / "b" / ".hidden.jpg").write_bytes(b"")
    source = open_source(class_folder, "train")
    names = [f"{class_folder}/{'abc'[i // 3]}/{i % 3}.jpg" for i in range(8)]
    check(source, jpegs, [0, 0, 0, 1, 1, 1, 2, 2], names)
    assert source.classes == ("a", "b", "c")


def test_pictures_deeper_in_a_class_folder_are_of_that_class(tmp_path: Path, jpegs: list[bytes]):
    path = tmp_path / "cat" / "black" / "1.JPEG"
    path.parent.mkdir(parents=True)
    path.write_bytes(jpegs[0])
    check(ImageFolder(tmp_path), jpegs[:1], [0], [str(path)])


def test_webdataset_tars(tmp_path: Path, write_tar: WriteTar, jpegs: list[bytes]):
    for shard in range(2):
        write_tar(tmp_path / f"imagenet1k-train-{shard:04}.tar")
    write_tar(
        tmp_path / "imagenet1k-validation-00.tar", {"n01/x.1.jpg": jpegs[3], "n01/x.cls": b"4\n", "n01/x.json": b"{}"}
    )
    source = open_source(tmp_path, "train")
    names = [f"{tmp_path}/imagenet1k-train-{shard:04}.tar:photo_{i}.jpg" for shard in range(2) for i in range(8)]
    check(source, jpegs * 2, LABELS * 2, names)
    assert source.classes is None


def test_a_sample_of_a_tar_ends_at_the_first_dot(tmp_path: Path, write_tar: WriteTar, jpegs: list[bytes]):
    path = write_tar(tmp_path / "x.tar", {"a/1.jpg": jpegs[0], "b/1.jpg": jpegs[1], "a/1.cls": b"0", "b/1.cls": b"1\n"})
    check(TarFiles([path], "x"), jpegs[:2], [0, 1], [f"{path}:a/1.jpg", f"{path}:b/1.jpg"])


def test_hugging_face_parquet(tmp_path: Path, jpegs: list[bytes]):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", jpegs[:5], LABELS[:5], names=["cat", "dog", "owl"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", jpegs[5:], LABELS[5:], names=["cat", "dog", "owl"])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", jpegs[:1], [1], names=["cat", "dog", "owl"])
    source = open_source(tmp_path, "train")
    check(source, jpegs, LABELS, [f"{tmp_path}[{i}]" for i in range(8)])
    assert source.classes == ("cat", "dog", "owl")
    assert len(open_source(tmp_path, "validation")) == 1


def test_parquet_without_names_of_classes(tmp_path: Path, jpegs: list[bytes]):
    write_parquet(tmp_path / "a.parquet", jpegs, LABELS)
    source = open_source(tmp_path, "train")
    check(source, jpegs, LABELS, [f"{tmp_path}[{i}]" for i in range(8)])
    assert source.classes is None


def test_array_records_as_tfds_writes_them(tmp_path: Path, jpegs: list[bytes]):
    write_records(tmp_path / "photos-train.array_record-00000-of-00002", jpegs[:5], LABELS[:5])
    write_records(tmp_path / "photos-train.array_record-00001-of-00002", jpegs[5:], LABELS[5:])
    write_records(tmp_path / "photos-test.array_record-00000-of-00001", jpegs[:2], LABELS[:2])
    source = open_source(tmp_path, "train")
    check(source, jpegs, LABELS, [f"{tmp_path}[{i}]" for i in range(8)])
    assert source.classes == ("cat", "dog", "owl")
    assert len(open_source(tmp_path, "validation")) == 2


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1), (6, 5, 4, 3)])
@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_npz_files(tmp_path: Path, shape: tuple[int, ...], classes: list[str] | None):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    labels = np.array([0, 1, 1, 0, 1, 0], np.uint8)
    extra = {} if classes is None else {"classes": np.array(classes)}
    np.savez(tmp_path / "train.npz", images=images, labels=labels, **extra)
    np.savez_compressed(tmp_path / "test.npz", images=images[:2], labels=labels[:2], **extra)
    source = open_source(tmp_path, "train")
    assert len(source) == 6 and source.num_classes == 2
    assert source.classes == (None if classes is None else ("cat", "dog"))
    np.testing.assert_array_equal(source[3].image, images[3])
    assert source[1].label == 1 and source[1].name == f"{tmp_path}/train.npz[1]"
    assert decode(source[0]).shape == (5, 4, 3)
    assert len(open_source(tmp_path, "validation")) == 2


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_as_mnist_has_them(tmp_path: Path, suffix: str):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    for prefix, number in (("train", 4), ("t10k", 2)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", images[:number])
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(number, dtype=np.uint8))
    source = open_source(tmp_path, "train")
    assert (len(source), source.num_classes) == (4, 4)
    np.testing.assert_array_equal(source[2].image, images[2])
    assert len(open_source(tmp_path, "validation")) == 2


def test_the_digits_of_scikit_learn():
    train, validation = open_source(Path("digits"), "train"), open_source(Path("digits"), "validation")
    assert (len(train), len(validation)) == (1438, 359)
    assert train.classes == tuple("0123456789")
    pixels = decode(train[0])
    assert pixels.shape == (8, 8, 3) and pixels.max() > 230
    assert train[0].label == 0


def test_digits_is_a_folder_where_there_is_one(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class_folder.rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert len(open_source(Path("digits"), "train")) == 8


@pytest.mark.parametrize("name", ["validation", "valid", "val", "test"])
def test_a_folder_of_the_splits_name_is_entered(name: str, tmp_path: Path, class_folder: Path, write_tar: WriteTar):
    data = tmp_path / "data"
    data.mkdir()
    write_tar(data / "train" / "shard-0.tar")
    class_folder.rename(data / name)
    assert isinstance(open_source(data, "train"), TarFiles)
    assert isinstance(open_source(data, "validation"), ImageFolder)


def test_validation_is_taken_before_test(tmp_path: Path, write_tar: WriteTar, jpegs: list[bytes]):
    for name, number in (("train", 3), ("validation", 2), ("test", 1)):
        members = {}
        for index in range(number):
            members |= {f"{index}.jpg": jpegs[0], f"{index}.cls": b"0"}
        write_tar(tmp_path / f"{name}-0.tar", members)
    assert [len(open_source(tmp_path, split)) for split in ("train", "validation")] == [3, 2]


# -- refused -----------------------------------------------------------------------------------------------------------


def refused(path: Path, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        open_source(path, split)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path):
    assert "does not exist; check it (built in is one data set, `digits`" in refused(tmp_path / "nowhere")
    assert "File name too long" in refused(tmp_path / ("x" * 300))
    (tmp_path / "file.tar").write_bytes(b"")
    assert "is a file" in refused(tmp_path / "file.tar")


def test_a_folder_with_no_pictures_is_refused(tmp_path: Path):
    assert "holds no pictures" in refused(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "readme.txt").write_text("none")
    assert "holds no pictures" in refused(tmp_path)


def test_a_split_that_is_not_there_is_refused_and_what_is_there_named(
    tmp_path: Path, class_folder: Path, write_tar: WriteTar
):
    assert "has no validation split; there is a, b, c" in refused(class_folder, "validation")
    write_tar(tmp_path / "tars" / "train-0.tar")
    assert "has no validation split; there is train-0.tar" in refused(tmp_path / "tars", "validation")
    (tmp_path / "folders").mkdir()
    class_folder.rename(tmp_path / "folders" / "val")
    assert "has no train split; there is val" in refused(tmp_path / "folders", "train")


def test_every_faulty_tar_is_named_at_once(tmp_path: Path, write_tar: WriteTar, jpegs: list[bytes]):
    write_tar(tmp_path / "0.tar")
    write_tar(tmp_path / "1.tar", {"a.jpg": jpegs[0]})
    write_tar(tmp_path / "2.tar", {"a.jpg": jpegs[0], "a.cls": b"cat"})
    (tmp_path / "3.tar").write_bytes(b"<html>" * 200)
    write_tar(tmp_path / "4.tar", {"a.jpg": jpegs[0] * 20, "a.cls": b"0"})
    (tmp_path / "4.tar").write_bytes((tmp_path / "4.tar").read_bytes()[:9000])
    message = refused(tmp_path)
    assert "1.tar: 1 members lack their .cls or their picture, among them a" in message
    assert "2.tar:a.cls: b'cat' is no class" in message
    assert "3.tar: is no tar archive" in message
    assert "4.tar: " in message
    assert "0.tar" not in message.replace(str(tmp_path), "")


def test_a_tar_that_is_cut_off_later_gives_a_broken_picture(tmp_path: Path, write_tar: WriteTar):
    path = write_tar(tmp_path / "x.tar")
    source = TarFiles([path], "x")
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(InputError, match=r"x\.tar:photo_7\.jpg: "):
        decode(source[7])
    path.unlink()
    with pytest.raises(InputError, match=r"x\.tar:photo_0\.jpg: cannot be read"):
        _ = source[0]


def test_faulty_parquet_is_refused(tmp_path: Path, jpegs: list[bytes]):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "columns"
    folder.mkdir()
    datasets.Dataset.from_dict({"picture": [1], "class": [2]}).to_parquet(folder / "x.parquet")
    assert "no column image or img and no label; there are picture, class" in refused(folder)
    write_parquet(tmp_path / "unlabelled" / "x.parquet", jpegs[:2], [0, -1])
    assert "label -1 (of picture 1) is negative" in refused(tmp_path / "unlabelled")
    write_parquet(tmp_path / "damaged" / "x.parquet", jpegs, LABELS)
    file = tmp_path / "damaged" / "x.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged" in refused(tmp_path / "damaged")


def test_faulty_array_records_are_refused(tmp_path: Path, jpegs: list[bytes]):
    write_records(tmp_path / "a" / "x.array_record", jpegs, LABELS, classes=None)
    assert "label.labels.txt: does not exist" in refused(tmp_path / "a")
    write_records(tmp_path / "b" / "x.array_record", jpegs, LABELS)
    (tmp_path / "b" / "x.array_record").write_bytes(b"no record" * 100)
    assert "is no ArrayRecord" in refused(tmp_path / "b")
    write_records(tmp_path / "c" / "x.array_record", jpegs[:2], [0, 3])
    source = ArrayRecords([tmp_path / "c" / "x.array_record"], "c")
    assert source[0].label == 0
    with pytest.raises(InputError, match=r"c\[1\]: label 3 is beyond the 3 classes"):
        _ = source[1]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((3, 4, 4), np.uint8)}, "has no array labels; there are images"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(2, int)}, "there must be as many"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros(3, int)}, "images are float64"),
        ({"images": np.zeros((3, 4, 4, 2), np.uint8), "labels": np.zeros(3, int)}, "shape (3, 4, 4, 2)"),
        ({"images": np.zeros((), np.uint8), "labels": np.zeros(3, int)}, "shape ()"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(3)}, "labels are float64"),
        (
            {"images": np.zeros((3, 4, 4), np.uint8), "labels": np.array([0, -2, 1])},
            "label -2 (of picture 1) is negative",
        ),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 2]), "classes": np.array(["a", "b"])},
            "label 2 (of picture 1) is beyond the 2 classes",
        ),
        ({"images": np.zeros((0, 4, 4), np.uint8), "labels": np.zeros(0, int)}, "holds no pictures"),
        ({"images": np.array([None]), "labels": np.zeros(1, int)}, "is no npz file of plain arrays"),
    ],
)
def test_a_faulty_npz_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str):
    np.savez(tmp_path / "train.npz", **arrays)
    message = refused(tmp_path)
    assert "train.npz" in message
    assert reason in message


def test_a_truncated_or_foreign_npz_is_refused(tmp_path: Path):
    path = tmp_path / "train.npz"
    np.savez(path, images=np.zeros((3, 4, 4), np.uint8), labels=np.zeros(3, int))
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"PK\x03\x04", b"text"):
        path.write_bytes(data)
        assert "is no npz file" in refused(tmp_path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "is no npz file" in refused(tmp_path)


def test_faulty_idx_files_are_refused(tmp_path: Path):
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    write_idx(images, np.zeros((3, 4, 4), np.uint8))
    assert f"{labels}: is missing" in refused(tmp_path)
    write_idx(labels, np.zeros(2, np.uint8))
    assert "there must be as many" in refused(tmp_path)
    write_idx(labels, np.zeros((3, 1), np.uint8))
    assert f"{labels}: is no IDX file of bytes with 1 axes" in refused(tmp_path)
    write_idx(labels, np.zeros(3, np.uint8))
    images.write_bytes(images.read_bytes()[:-1])
    assert f"{images}: holds 47 bytes where shape (3, 4, 4) needs 48" in refused(tmp_path)
    images.write_bytes(b"\0\0")
    assert f"{images}: is no IDX file" in refused(tmp_path)
    zipped = images.with_suffix(".gz")
    write_idx(zipped, np.zeros((3, 4, 4), np.uint8))
    zipped.write_bytes(zipped.read_bytes()[:20])
    images.unlink()
    assert f"{zipped}: is missing or damaged" in refused(tmp_path)


def test_all_that_is_wrong_with_arrays_is_said_at_once():
    with pytest.raises(InputError, match=r"mine: images are float32.*labels are float32.*as many"):
        Arrays(np.zeros((2, 4, 4), np.float32), np.zeros(3, np.float32), name="mine")


@pytest.mark.parametrize(
    ("module", "extra", "make"),
    [
        ("datasets", "hf", lambda: ParquetFiles([Path("x.parquet")], "x")),
        ("array_record", r"nfnet-eqx\[train\]", lambda: ArrayRecords([Path("x.array_record")], "x")),
        ("sklearn", "scikit-learn", lambda: open_source(Path("digits"), "train")),
    ],
)
def test_a_missing_package_is_named_with_how_to_get_it(
    module: str, extra: str, make: Callable[[], Source], monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install .*{extra}"):
        make()


def test_a_grey_picture_in_a_folder_is_rgb(tmp_path: Path):
    path = tmp_path / "a" / "x.jpg"
    path.parent.mkdir()
    path.write_bytes(jpeg(Image.new("L", (8, 8), 77)))
    assert decode(ImageFolder(tmp_path)[0]).shape == (8, 8, 3)
