"""The one factory: subclasses, graphs, what is refused on saving, and files that ask for too much."""

from __future__ import annotations

import json
import re
import resource

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from lifeiqa_plugin.checkpoints.factory import build_lifeiqa, build_network
from lifeiqa_plugin.checkpoints.files import ModelCard, read_checkpoint, save_checkpoint
from lifeiqa_plugin.network.config import option_names
from lifeiqa_plugin.network.lifeiqa import LifeIQA

SMALL = {
    "backbone": "test_efficientnet",
    "embed_dim": 24,
    "num_heads": 2,
    "depth": 1,
    "num_experts": 2,
}
CARD = ModelCard("noise", "CC0-1.0")


class Upturned(LifeIQA):
    """Scores with the other sign, times a factor of its own."""

    def __init__(self, *args, factor=1.0, **options):
        super().__init__(*args, **options)
        self.config["factor"] = factor
        self.factor = factor

    def to_range(self, raw):
        return -self.factor * super().to_range(raw)


class Started(LifeIQA):
    """Has a second layer that starts from a file."""

    def __init__(self, *args, second_pretrained=False, **options):
        super().__init__(*args, **options)
        self.config["second_pretrained"] = second_pretrained
        self.second = torch.nn.Linear(3, 3)
        if second_pretrained:
            self.second.load_state_dict(torch.load(second_pretrained, weights_only=True))


class Forgetful(LifeIQA):
    def __init__(self, *, secret=1, **options):
        super().__init__(**options)


@pytest.fixture
def saved(tmp_path):
    def save(network):
        save_checkpoint(network, tmp_path / "net.safetensors", CARD)
        return tmp_path / "net.safetensors"

    return save


def with_config(path, **changes):
    """Rewrite the options that a checkpoint says it was built with."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    about = json.loads(header["__metadata__"]["lifeiqa"])
    about["config"] |= changes
    save_file(load_file(path), path, {"lifeiqa": json.dumps(about)})
    return path


# Subclasses


def test_weights_to_start_from_may_be_gone_when_a_checkpoint_is_read(saved, tmp_path):
    start = tmp_path / "start.pth"
    torch.save(torch.nn.Linear(3, 3).state_dict(), start)
    network = build_network({"type": "Started", "second_pretrained": str(start), **SMALL})
    path = saved(network)
    start.unlink()
    again = build_network({"pretrained_model_path": path})
    assert type(again) is Started
    torch.testing.assert_close(again.second.weight, network.second.weight, atol=0, rtol=0)


def test_a_subclass_is_itself_wherever_it_is_built(saved):
    x = torch.rand(1, 3, 64, 64)
    network = build_network({"type": "Upturned", "factor": 2.0, **SMALL}).eval()
    assert type(network) is Upturned
    score = network(x)
    path = saved(network)
    plain = LifeIQA(**SMALL).eval()
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(score, -2 * plain(x))
    for again in (
        build_lifeiqa(pretrained_model_path=path),
        build_network({"pretrained_model_path": path}),
        build_network({"type": "Upturned", "pretrained_model_path": path}),
        build_network({"type": "Upturned", "pretrained_model_path": path, "factor": 2.0}),
    ):
        assert type(again) is Upturned
        assert torch.equal(again.eval()(x), score)


def test_a_subclass_is_found_by_its_name_or_its_module():
    for name in ("Upturned", f"{__name__}.Upturned"):
        assert type(build_network({"type": name, **SMALL})) is Upturned


def test_types_that_contradict_are_refused(saved):
    path = saved(Upturned(**SMALL))
    message = rf"net\.safetensors: the checkpoint is of network type {__name__}\.Upturned, but LifeIQA was"
    with pytest.raises(ValueError, match=message):
        build_network({"type": "LifeIQA", "pretrained_model_path": path})
    with pytest.raises(
        ValueError, match=r"the checkpoint has factor=1\.0, but factor=3\.0 was asked for"
    ):
        build_network({"pretrained_model_path": path, "factor": 3.0})


def test_unknown_types():
    message = "network type must be LifeIQA or a subclass of it that has been imported, got "
    for name, hint in (("Upturne", "did you mean 'Upturned'?"), ("os:system", "import the module")):
        with pytest.raises(ValueError, match=re.escape(f"{message}{name!r}; {hint}")):
            build_network({"type": name, **SMALL})


def test_a_class_that_has_not_been_imported(saved):
    path = saved(LifeIQA(**SMALL))
    content = path.read_bytes().replace(b'\\"type\\": \\"LifeIQA\\"', b'\\"type\\": \\"os.mkdir\\"')
    change = len(content) - path.stat().st_size
    length = int.from_bytes(content[:8], "little") + change
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    with pytest.raises(
        ValueError, match=r"net\.safetensors: network type must be .*, got 'os\.mkdir'"
    ):
        build_lifeiqa(pretrained_model_path=path)
    assert read_checkpoint(path).type == "os.mkdir"


def test_arguments_of_a_subclass_are_checked_by_its_signature():
    assert {"factor", "backbone", "score_range", "depth", "distortions"} <= {
        *option_names(Upturned)
    }
    assert "factor" not in option_names()
    with pytest.raises(TypeError, match=r"Upturned has no option 'facto'; did you mean 'factor'\?"):
        build_network({"type": "Upturned", "facto": 2.0, **SMALL})


def test_a_subclass_must_remember_its_arguments():
    message = "Forgetful forgets its argument 'secret': its __init__ must say self.config['secret'] = secret"
    with pytest.raises(ValueError, match=re.escape(message)):
        build_network({"type": "Forgetful", **SMALL})


def test_for_training_or_for_scoring(saved):
    random = {"pretrained": False, **SMALL}
    assert build_network(random).trainable
    assert build_lifeiqa(**random).trainable
    trained = {"pretrained_model_path": saved(LifeIQA(**SMALL))}
    assert build_network(trained).trainable
    assert not build_lifeiqa(**trained).trainable


# Graphs


@pytest.mark.parametrize("graph", ["complete", "ring", "star", "none", [[0, 1], [1, 2], [2, 0]]])
@pytest.mark.parametrize("adjacency", ["fixed", "learnable"])
def test_the_graph_is_saved(saved, graph, adjacency):
    x = torch.rand(1, 3, 64, 64)
    network = LifeIQA(**SMALL, graph=graph, adjacency=adjacency).eval()
    again = build_lifeiqa(pretrained_model_path=saved(network))
    assert again.config["graph"] == graph
    assert torch.equal(again(x), network(x))
    other = LifeIQA(**SMALL, adjacency="fixed", graph="none" if graph != "none" else "ring").eval()
    other.load_state_dict(network.state_dict(), strict=False)
    assert not torch.equal(other(x), network(x)), "the graph must matter"


# What cannot be read again is not written


def change_graph(network):
    network.decoder.layers[0].gcn.edge_weight = torch.zeros(36)


def change_mean(network):
    network.mean += 0.1


def change_head(network):
    network.decoder.head = torch.nn.Linear(24, 2)


def add_layer(network):
    network.more = torch.nn.Linear(2, 2)


def change_size(network):
    network.crop_size = 100


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_graph, "decoder.layers.0.gcn.edge_weight is not that of a LifeIQA built from its own options"),
        (change_mean, "mean is not that of a LifeIQA"),
        (change_head, "2 tensors (decoder.head.bias, decoder.head.weight) are not those of a LifeIQA"),
        (add_layer, "2 tensors (more.bias, more.weight) are not those of a LifeIQA"),
        (change_size, "crop_size is 100, but 160 in a LifeIQA"),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_rebuilt_is_refused(tmp_path, change, what):
    network = LifeIQA(**SMALL)
    change(network)
    message = re.escape(f"not saved, as it could not be read again: {what}")
    with pytest.raises(ValueError, match=message):
        save_checkpoint(network, tmp_path / "net.safetensors", CARD)
    assert list(tmp_path.iterdir()) == []


# Files that ask for too much


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 16_384, "num_experts": 4096}, "the weights do not fit a LifeIQA with"),
        ({"backbone": "convnext_xxlarge"}, "the weights do not fit a LifeIQA with"),
        ({"depth": 10**9}, "depth must be at most 64, got 1000000000"),
        ({"num_queries": 10**6}, "num_queries must be at most 256, got 1000000"),
        ({"memory_grid": 10**6}, "memory_grid must be at most 64, got 1000000"),
        ({"crop_size": 10**6}, "crop_size must be at most 2048, got 1000000"),
        ({"test_sample": 10**12}, "test_sample must be at most 10000, got 1000000000000"),
        ({"embed_dim": "24"}, "embed_dim must be a whole number, got '24'"),
        ({"distortions": ["x"] * 10**6}, "distortions must differ from one another"),
        ({"graph": [[0, 10**9]]}, "graph must name nodes 0 .. 5"),
        ({"backbone": "hf-hub:timm/resnet18.a1_in1k"}, "backbone must be the name of a timm model, got 'hf-hub:"),
        ({"backbone": "local-dir:/etc"}, "backbone must be the name of a timm model, got 'local-dir:/etc'"),
        ({"backbone": "../../weights"}, "backbone must be the name of a timm model, got '../../weights'"),
        ({"backbone": ["resnet18"]}, "backbone must be the name of a timm model, got ['resnet18']"),
    ],
)  # fmt: skip
def test_a_file_cannot_ask_for_more_than_it_holds(saved, changes, message):
    timm.create_model("test_efficientnet")
    path = with_config(saved(LifeIQA(**SMALL)), **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((TypeError, ValueError), match=re.escape(f"net.safetensors: {message}")):
        build_lifeiqa(pretrained_model_path=path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024  # kibibytes


def test_a_file_cannot_have_weights_fetched(saved):
    path = with_config(saved(LifeIQA(**SMALL)), backbone_pretrained=True, chunk_size=10**9)
    network = build_lifeiqa(pretrained_model_path=path)
    assert network.config["backbone_pretrained"] is False
    assert network.chunk_size == 16
