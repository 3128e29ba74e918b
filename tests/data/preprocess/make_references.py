"""Make the pictures and timm's outputs that test_preprocess.py compares with.

Run in an environment with timm (`make test-parity` makes one), from the repository's root:
    .venv-parity/bin/python tests/data/preprocess/make_references.py
"""

import hashlib
import importlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
PHOTO = HERE.parents[2] / "examples" / "images" / "chelsea.jpg"
CHECKPOINTS = [f"dm_nfnet_f{size}.dm_in1k" for size in range(7)] + [
    "nfnet_l0.ra2_in1k",
    "eca_nfnet_l0.ra2_in1k",
    "eca_nfnet_l1.ra2_in1k",
    "eca_nfnet_l2.ra3_in1k",
    "nf_regnet_b1.ra2_in1k",
    "nf_resnet50.ra2_in1k",
    "test_nfnet.r160_in1k",
]
CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616]}


def make_pictures() -> list[str]:
    """One photo in the shapes and modes that files have; each lossless, so that every decoder sees the same pixels."""
    photo = Image.open(PHOTO).convert("RGB")
    small = photo.resize((64, 43))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, which timm does not do
    sixteen = np.asarray(small.convert("L")).astype(np.uint16) * 257
    transparent = small.copy()
    transparent.putalpha(small.convert("L"))
    pictures = {
        "landscape.png": (photo.resize((151, 101)), {}),
        "portrait.png": (photo.crop((140, 0, 330, 300)).resize((61, 97)), {}),
        "tiny.png": (photo.resize((7, 5)), {}),
        "grey.png": (small.convert("L"), {}),
        "alpha.png": (transparent, {}),
        "palette.png": (small.quantize(64), {"transparency": bytes(range(0, 256, 4))}),
        "sixteen.png": (Image.fromarray(sixteen), {}),
        "cmyk.tif": (small.convert("CMYK"), {"compression": "tiff_lzw"}),
        "turned.png": (small, {"exif": exif}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(HERE / name, **options)
    return list(pictures)


def cases(pictures: list[str]) -> list[dict]:
    """Each: a picture, a pretrained_cfg, the size, and the step with which the output is sampled to keep it small."""
    get_pretrained_cfg = importlib.import_module("timm.models").get_pretrained_cfg
    keys = ("input_size", "test_input_size", "crop_pct", "test_crop_pct", "crop_mode", "interpolation", "mean", "std")
    found = []
    for name in CHECKPOINTS:
        published = get_pretrained_cfg(name).to_dict()
        config = {key: published[key] for key in keys if published.get(key) is not None}
        for test in (False, True):
            found.append({"name": name, "picture": "landscape.png", "config": config, "test": test, "step": 23})
    for picture in pictures:
        for mode in ("center", "squash", "border"):
            config = {"input_size": [3, 32, 32], "crop_pct": 1.0, "crop_mode": mode, **CIFAR}
            found.append({"name": f"cifar {mode}", "picture": picture, "config": config, "test": False, "step": 3})
    for height, width, crop_pct, mode, interpolation in (
        (48, 80, 0.9, "center", "bilinear"),
        (80, 48, 0.875, "center", "lanczos"),
        (48, 80, 0.95, "squash", "nearest"),
        (48, 80, 0.8, "border", "hamming"),
        (45, 45, 1.3, "center", "box"),
        (45, 70, 1.3, "border", "bicubic"),
    ):
        config = {"input_size": [3, height, width], "crop_pct": crop_pct, "crop_mode": mode}
        config["interpolation"] = interpolation
        name = f"{height} x {width} {crop_pct} {mode} {interpolation}"
        for picture in ("landscape.png", "portrait.png"):
            found.append({"name": name, "picture": picture, "config": config, "test": False, "step": 3})
    found.append({"name": "defaults", "picture": "landscape.png", "config": {}, "test": False, "step": 23})
    return found


def main() -> None:
    """Write the pictures, references.npz and provenance.json."""
    torch = importlib.import_module("torch")
    library = torch.library.Library(
        "torchvision", "DEF"
    )  # a CPU torch has no torchvision operators, timm asks for them
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    timm = importlib.import_module("timm")
    data = importlib.import_module("timm.data")
    pictures = make_pictures()
    listed = cases(pictures)
    outputs = {}
    for i, case in enumerate(listed):
        settings = data.resolve_data_config(
            pretrained_cfg=case["config"] or {"num_classes": 0}, use_test_size=case["test"]
        )
        transform = data.create_transform(**settings)
        output = transform(Image.open(HERE / case["picture"]).convert("RGB")).numpy()
        case["shape"] = list(output.shape)
        outputs[str(i)] = output[:, :: case["step"], :: case["step"]]
    np.savez_compressed(HERE / "references.npz", **outputs)
    provenance = {
        "what": "A photo in several shapes and modes, and what timm's eval transform makes of it: references.npz holds"
        " output[:, ::step, ::step] of case i under the key str(i).",
        "generator": "tests/data/preprocess/make_references.py",
        "versions": {"timm": timm.__version__, "torch": torch.__version__, "pillow": Image.__version__},
        "licence": "CC0: the photo is examples/images/chelsea.jpg.",
        "sha256": {
            name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in [*pictures, "references.npz"]
        },
        "cases": listed,
    }
    text = json.dumps(provenance, indent=1)
    (HERE / "provenance.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
