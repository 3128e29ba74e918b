"""The catalog: every published checkpoint of the family, and how its published accuracy was measured."""

import dataclasses
import functools
import tomllib
from importlib import resources
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx.images import CropMode, Interpolation, Preprocess, Resize
from nfnet_eqx.models import Numerics


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedAccuracy:
    """A published accuracy, and the preprocessing that it was measured with.

    Attributes:
        size: side of the picture in pixels.
        crop_pct: the crop's share of the resized picture; `None` where `resize` is DeepMind's, which has none.
        crop_mode: as in `Preprocess`; so are the next four.
        interpolation: Pillow's filter.
        resize: whose way of resizing.
        mean: subtracted from each channel.
        std: what each channel is then divided by.
        top1: on the pictures that `Published` names, in percent.
        top5: the same for five guesses, where known.
        source: who printed these figures.
    """

    size: int
    crop_pct: float | None = None
    crop_mode: CropMode = "center"
    interpolation: Interpolation = "bicubic"
    resize: Resize = "timm"
    mean: tuple[float, ...] = Preprocess.mean
    std: tuple[float, ...] = Preprocess.std
    top1: float
    top5: float | None = None
    source: str

    def preprocess(self) -> Preprocess:
        """The preprocessing, at this size in any case."""
        if self.resize == "deepmind":
            return dataclasses.replace(Preprocess.deepmind(self.size), mean=self.mean, std=self.std)
        return Preprocess(
            input_size=(self.size, self.size),
            crop_pct=Preprocess.crop_pct if self.crop_pct is None else self.crop_pct,
            crop_mode=self.crop_mode,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published checkpoint. It stands on the Hub, is a file to download, or (with neither) ships with the package.

    Attributes:
        name: timm's, architecture and tag: `"dm_nfnet_f0.dm_in1k"`; DeepMind's files have the tag `deepmind`.
        architecture: what the network is called.
        hub_id: its repository on the Hub; `None`: it is not there.
        url: the file to download, where it is one.
        file_size: of that file, in bytes, where known.
        md5: of that file, where somebody published it.
        license: what its publisher states; `None`: nothing is known of one.
        numerics: which of the two published functions its parameters are meant for.
        parameters: learnable numbers.
        train_size: side of the pictures in training, in pixels.
        train_macs: multiply-adds for one picture of that size.
        test_size: side of the pictures at which it is best evaluated.
        test_macs: multiply-adds for one picture of that size.
        data: what its accuracies were measured on.
        classes: how many classes that has.
        pictures: how many pictures were looked at.
        published: its published accuracies, by size.
    """

    name: str
    architecture: str
    hub_id: str | None = None
    url: str | None = None
    file_size: int | None = None
    md5: str | None = None
    license: str | None = None
    numerics: Numerics
    parameters: int
    train_size: int
    train_macs: int
    test_size: int
    test_macs: int
    data: str = "ImageNet-1k"
    classes: int = 1000
    pictures: int = 50_000
    published: tuple[PublishedAccuracy, ...]

    def accuracy(self, size: int | None = None) -> PublishedAccuracy:
        """The accuracy at a size, and how it was measured.

        >>> find("dm_nfnet_f0.dm_in1k").accuracy().preprocess().size()
        (256, 256)

        Args:
            size: side of the pictures in pixels; `None` is the test size.

        Raises:
            InputError: no accuracy is published for that size; the message names the sizes.
        """
        size = self.test_size if size is None else size
        for accuracy in self.published:
            if accuracy.size == size:
                return accuracy
        known = " or ".join(str(accuracy.size) for accuracy in self.published)
        raise InputError(f"size {size}: no accuracy of {self.name} is published for it; take {known}")


@functools.cache
def catalog() -> tuple[Published, ...]:
    """Every published checkpoint: the one that ships, timm's fourteen NFNets and four ViTs, DeepMind's seven files.

    References:
        timm 1.0.31 and its results/results-imagenet.csv; google-deepmind/deepmind-research, nfnets/; 2102.06171,
        table 3. What is from which stands at the top of catalog.toml.
    """
    text = (resources.files("nfnet_eqx.zoo") / "catalog.toml").read_text(encoding="utf-8")
    return tuple(_published(table) for table in tomllib.loads(text)["checkpoint"])


def find(name: str) -> Published | None:
    """The published checkpoint with this name or Hub id; `None`: it is none.

    >>> find("timm/dm_nfnet_f0.dm_in1k").parameters
    71489284
    """
    return next((published for published in catalog() if name in (published.name, published.hub_id)), None)


def _published(table: dict[str, Any]) -> Published:
    fields: dict[str, Any] = table | {"published": tuple(_accuracy(row) for row in table["published"])}
    return Published(**fields)


def _accuracy(table: dict[str, Any]) -> PublishedAccuracy:
    # TOML has lists where a frozen dataclass wants tuples.
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return PublishedAccuracy(**fields)
