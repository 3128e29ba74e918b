"""From the Hub and back to it: what the README shows, on a small checkpoint, small data and a loopback Hub."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

import nfnet_eqx as nfx
from nfnet_eqx.train import train
from nfnet_eqx.train.recipes import finetune
from nfnet_eqx.zoo._hub import pull
from tests.hub_server import Hub
from tests.zoo.repos import TIMM, published


@pytest.mark.slow
def test_a_checkpoint_is_fine_tuned_and_goes_back_with_a_card_that_says_so(data_folder: Path, tmp_path: Path) -> None:
    with Hub(tmp_path / "hub") as hub:
        hub.add(TIMM, published(tmp_path))
        pull(TIMM, endpoint=hub.endpoint)  # into the default cache: training opens what is there
        recipe = finetune(data_folder, tmp_path / "run", TIMM)
        small = dataclasses.replace(recipe, image_size=32, eval_size=32, epochs=1, batch_size=64)
        result = train(small)
        assert result.checkpoint is not None and result.evaluation is not None
        nfx.push_to_hub(result.checkpoint, "me/fine-tuned", endpoint=hub.endpoint, token="hf_me")

        ours = nfx.named_parameters(nfx.from_pretrained(result.checkpoint).model)
        ckpt = nfx.from_pretrained("me/fine-tuned", endpoint=hub.endpoint, cache_dir=tmp_path / "cache")
        for name, array in nfx.named_parameters(ckpt.model).items():
            np.testing.assert_array_equal(array, ours[name], err_msg=name)
        card = hub.files("me/fine-tuned")["README.md"].decode()
        meta = yaml.safe_load(card.split("---\n")[1])
        assert (meta["base_model"], meta["base_model_relation"]) == (TIMM, "finetune")
        (measured,) = meta["model-index"][0]["results"]
        values = {metric["name"]: metric["value"] for metric in measured["metrics"]}
        assert values["Top-1"] == pytest.approx(result.evaluation.top1, abs=0.005)
        assert "sam_rho" in card and 'nfx.from_pretrained("me/fine-tuned")' in card
        assert 'timm.create_model("hf-hub:me/fine-tuned", pretrained=True)' in card
