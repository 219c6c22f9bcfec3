"""Attacks on the scanner itself: weights hidden from it, code by other ways than a call, amplification.

Each of these once got past it, or took minutes or gigabytes. A pair of files that differ in one value proves
that the way in which they are built is not what is judged.
"""

import pytest

from nantui.checkpoint.pickle.allowlist import is_absent
from nantui.checkpoint.scan import scan
from tests.checkpoint import archives as a
from tests.checkpoint.modules import DATA, DETECTOR, GOOD, NAN, checkpoint, convolution, judged, module, pairs

# -- hidden weights -------------------------------------------------------------------------------------


def same_key_twice(weight):
    items = (a.text("ema"), convolution(GOOD), a.text("ema"), convolution(weight))
    return a.pickled(pairs(*items, a.text("epoch"), b"K\x01", a.text("train_args"), a.dictionary(x=b"N")))


def same_child_twice(weight):
    children = pairs(a.text("0"), convolution(GOOD), a.text("0"), convolution(weight))
    return checkpoint(module(_modules=children))


def names_too_long_to_tell(weight):
    children = (a.text("a" * 400 + "b"), convolution(GOOD), a.text("a" * 400 + "c"), convolution(weight))
    return checkpoint(module(_modules=pairs(*children)))


def parameters_that_are_a_module(weight):
    inner = module(("torch.nn.modules.container", "ParameterDict"), _parameters=a.dictionary(weight=weight))
    return checkpoint(module(_parameters=inner, _buffers=a.dictionary(x=GOOD)))


def children_that_are_a_module(weight):
    return checkpoint(module(_modules=convolution(weight), _buffers=a.dictionary(x=GOOD)))


def parameters_in_a_list(weight):
    return checkpoint(module(_parameters=a.dictionary(weight=GOOD, more=b"]" + weight + b"a")))


def parameter_under_a_number(weight):
    return checkpoint(module(_parameters=pairs(a.text("weight"), GOOD, b"K\x07", weight)))


HIDDEN = [
    same_key_twice, same_child_twice, names_too_long_to_tell, parameters_that_are_a_module,
    children_that_are_a_module, parameters_in_a_list, parameter_under_a_number,
]  # fmt: skip


@pytest.mark.parametrize("hide", HIDDEN)
def test_no_weight_is_hidden(hide, tmp_path):
    assert judged(hide(GOOD), tmp_path).badge == "clean"
    verdict = judged(hide(NAN), tmp_path)
    assert verdict.badge == "corrupt" and verdict.findings[0].kind == "nan"


def test_a_parameter_whose_values_are_swapped_while_loading(tmp_path):
    """`_rebuild_parameter_with_state` sets attributes, and `data` is one."""

    def parameter(**attributes):
        arguments = GOOD, b"\x88", b"}", a.dictionary(**attributes)
        return convolution(a.call("torch._utils", "_rebuild_parameter_with_state", *arguments))

    assert judged(checkpoint(parameter(no_decay=b"\x88")), tmp_path).badge == "clean"
    assert judged(checkpoint(parameter(data=NAN)), tmp_path).badge == "unreadable"


def test_a_dictionary_whose_methods_are_hidden(tmp_path):
    """Attributes of an OrderedDict come before its methods: `items` could answer with other weights."""

    def ordered(**attributes):
        made = a.name("collections", "OrderedDict") + b")R(" + a.text("weight") + GOOD + b"u"
        return a.pickled(a.dictionary(model=made + a.dictionary(**attributes) + b"b"))

    assert judged(ordered(_metadata=b"}"), tmp_path).badge == "clean"
    assert judged(ordered(items=convolution(NAN)), tmp_path).badge == "unreadable"


# -- code without a call --------------------------------------------------------------------------------


def dotted(module_name, path):
    return a.text(module_name) + a.text(path) + b"\x93"


def test_a_known_module_does_not_lead_to_what_it_has_imported(tmp_path):
    """Protocol 4 looks a dotted name up attribute by attribute; an instance's `__del__` then runs."""
    popen = dotted("torch.nn.modules.module", "torch.utils.cpp_extension.subprocess.Popen")
    instance = popen + b")\x81" + a.dictionary(pid=b"K\x01", _child_created=b"\x88") + b"b"
    verdict = judged(b"\x80\x04" + a.dictionary(w=GOOD, x=instance) + b".", tmp_path)
    assert verdict.badge == "unreadable" and "Popen" in verdict.findings[0].where


@pytest.mark.parametrize(
    "path", ["_utils._rebuild_tensor_v2", "nn.modules.conv.Conv2d", "nn.functional.relu"]
)
def test_no_known_name_is_reached_by_attributes(path, tmp_path):
    body = b"\x80\x04" + a.dictionary(w=GOOD, x=dotted("torch", path) + b")R") + b"."
    assert judged(body, tmp_path).badge == "unreadable"


def architecture(**said):
    return checkpoint(module(DETECTOR, _parameters=a.dictionary(weight=GOOD), yaml=a.dictionary(**said)))


def layer(kind):
    return b"](](J\xff\xff\xff\xffK\x01" + a.text(kind) + b"]ee"


BUILT = {
    "an activation": {"activation": a.text("nn.SiLU()")},
    "an activation with arguments": {"activation": a.text("torch.nn.LeakyReLU(0.1, inplace=True)")},
    "no activation": {"activation": b"N"},
    "a layer": {"backbone": layer("Conv"), "head": layer("Detect")},
    "a layer of PyTorch": {"backbone": layer("nn.Upsample")},
    "a layer of torchvision": {"backbone": layer("torchvision.ops.DeformConv2d")},
}
RUN = {
    "an activation that imports": {"activation": a.text("__import__('os').system('touch /tmp/x')")},
    "an activation that calls inside": {"activation": a.text("nn.SiLU(open('/tmp/x', 'w'))")},
    "an activation of two expressions": {"activation": a.text("nn.SiLU() or exit()")},
    "an activation that is no text": {"activation": a.dictionary(x=b"N")},
    "an endless activation": {"activation": a.text("nn.SiLU(" + " " * 100_000 + ")")},
    "a function as a layer": {"backbone": layer("torch_load")},
    "a function as a head": {"head": layer("torchvision.ops.nms")},
    "an attribute of a layer": {"backbone": layer("nn.Module.apply")},
}


@pytest.mark.parametrize("said", BUILT.values(), ids=BUILT.keys())
def test_architectures_are_no_alarm(said, tmp_path):
    assert judged(architecture(**said), tmp_path).badge == "clean"


@pytest.mark.parametrize("said", RUN.values(), ids=RUN.keys())
def test_an_architecture_that_runs_when_it_is_built(said, tmp_path):
    """`parse_model` evaluates `activation` and looks layers up by name, which a resume does."""
    verdict = judged(architecture(**said), tmp_path)
    assert verdict.badge == "unreadable" and verdict.findings[0].kind == "unsafe"


def test_a_layer_of_ones_own_may_have_any_name(tmp_path):
    """A class of which the file holds an instance is judged by that; one activation can be allowed."""
    body = module(
        DETECTOR, _parameters=a.dictionary(weight=GOOD), yaml=a.dictionary(backbone=layer("eca_block")),
        _modules=a.dictionary(x=module(("ultralytics.nn.modules.block", "eca_block"))),
    )  # fmt: skip
    assert judged(checkpoint(body), tmp_path).badge == "clean"
    own = a.write(tmp_path / "own.pt", architecture(activation=a.text("mine.Act()")), DATA)
    assert scan(own).names_to_allow == ("mine.Act()",)
    assert scan(own, allowed=["mine.Act()"]).badge == "clean"


def test_an_architecture_that_would_be_fetched(tmp_path):
    body = module(DETECTOR, _parameters=a.dictionary(weight=GOOD), yaml=a.text("http://example.com/x.yaml"))
    assert judged(checkpoint(body), tmp_path).badge == "unreadable"


def test_ultralytics_still_evaluates_the_activation():
    """The premise: once a release no longer does, this rule can go."""
    import inspect

    pytest.importorskip("torch")
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    assert "eval(act)" in inspect.getsource(tasks.parse_model)


def test_a_class_of_a_fork_that_is_not_installed_here_cannot_be_resumed(tmp_path):
    weights = a.dictionary(
        a=module(("ultralytics.nn.modules.block", "C2fOfAFork"), _parameters=a.dictionary(weight=GOOD))
    )
    verdict = judged(checkpoint(module(DETECTOR, _modules=weights)), tmp_path)
    assert verdict.badge == "clean" and not verdict.resumable and not verdict.repairable
    assert verdict.cannot_be_loaded == "ultralytics.nn.modules.block.C2fOfAFork"
    assert verdict.why_not_resumable == "the Ultralytics here has no ultralytics.nn.modules.block.C2fOfAFork"


def test_classes_of_this_and_of_older_releases_are_there():
    older = ("ultralytics.nn.tasks.YOLOv10DetectionModel", "ultralytics.yolo.utils.loss.v8DetectionLoss")
    for name in (
        *older,
        "ultralytics.nn.modules.Conv",
        "ultralytics.nn.modules.block.C2f",
        "torch.nn.Conv2d",
    ):
        assert not is_absent(name)
    assert is_absent("ultralytics.nn.modules.no_such_file.Conv")
