"""Every kind of label problem: how bad it is, what Ultralytics does with it, and what it can lead to.

What Ultralytics does was read in `ultralytics/data/utils.py` (`verify_image_label`, `check_image`),
`data/dataset.py` and `data/augment.py` of 8.4.190; tests compare with the installed release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"


class Found(NamedTuple):
    """One finding: the index of the file, the line (from 1), the kind and the words."""

    file: int
    line: int
    kind: str
    text: str


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    `drops` is true where Ultralytics leaves the whole image out of the training because of it; `blocks`
    where it refuses to train at all.
    """

    name: str
    severity: str
    title: str
    ultralytics: str
    danger: str
    drops: bool = False
    blocks: bool = False


_DROP = "drops the whole image, with one line in the log, and trains on without it"
_LOST = "no NaN from it; the image is lost, and with it the rare classes it may hold"
_CLIP = "trains on it; augmentation clips it to the image and drops what is left under 2 pixels"

_ALL = (
    Kind("encoding", ERROR, "not UTF-8 text", _DROP, _LOST, drops=True),
    Kind("unreadable", ERROR, "label file cannot be read", _DROP, _LOST, drops=True),
    Kind("not_a_number", ERROR, "a word that is no number", _DROP, _LOST, drops=True),
    Kind("not_finite", ERROR, "NaN or Inf literal", _DROP, _LOST, drops=True),
    Kind("inf_kept", ERROR, "Inf literal that Ultralytics does not look at",
         "trains on it: in pose labels its upper limit is asked of the keypoints' x and y only",
         "augmentation turns it into NaN and loses it (seen in 8.4.190); an own loss may meet it as Inf"),
    Kind("columns", ERROR, "wrong number of columns", _DROP, _LOST, drops=True),
    Kind("mixed_rows", ERROR, "boxes and polygons in one file", _DROP, _LOST, drops=True),
    Kind("outside", ERROR, "coordinates outside 0..1", _DROP, _LOST, drops=True),
    Kind("outside_kept", ERROR, "coordinates outside 0..1 that Ultralytics does not look at",
         _CLIP + "; in validation it stays as it is",
         "targets far outside the image give large box losses and gradients"),
    Kind("slightly_outside", WARNING, "outside 0..1 by at most 1 %",
         "accepts it (its tolerance) and trains on it", "harmless"),
    Kind("over_edge", WARNING, "box reaches outside the image", _CLIP,
         "a clipped box no longer fits what is seen; with strong augmentation many become slivers"),
    Kind("class_negative", ERROR, "negative class", _DROP, _LOST, drops=True),
    Kind("class_not_whole", ERROR, "class is not a whole number", _DROP, _LOST, drops=True),
    Kind("class_too_large", ERROR, "class is not in names", _DROP, _LOST, drops=True),
    Kind("size_negative", ERROR, "negative width or height", _DROP, _LOST, drops=True),
    Kind("size_zero", ERROR, "zero width or height",
         "trains on it where nothing augments (validation, rect); augmentation drops it (under 2 pixels)",
         "IoU with an empty box divides by an epsilon; an own loss without one divides by zero"),
    Kind("below_pixel", WARNING, "box under one pixel at the run's imgsz",
         "augmentation drops it (under 2 pixels); validation counts it as missed",
         "box losses of tiny boxes are steep: they feed gradient explosions at high learning rates"),
    Kind("extreme_aspect", WARNING, "aspect ratio over 100",
         "augmentation drops it (its limit is 100); validation keeps it",
         "steep box losses, as for tiny boxes"),
    Kind("duplicate", WARNING, "the same row again", "removes the repetition, with one line in the log",
         "none"),
    Kind("few_points", ERROR, "polygon under 3 points",
         "trains on it: a box without area and a mask without pixels",
         "a mask loss over nothing: 0/0 in own losses"),
    Kind("zero_area", ERROR, "polygon without area",
         "trains on it: the mask has no pixels; for obb the box has no width",
         "obb: a box without width has a singular covariance; Ultralytics adds an epsilon, own losses may "
         "not"),
    Kind("keypoint_outside", ERROR, "keypoint outside the image", _DROP, _LOST, drops=True),
    Kind("keypoint_off_box", NOTE, "visible keypoint outside its own box", "trains on it",
         "the keypoint loss is divided by the box's area: far keypoints of small boxes weigh much"),
    Kind("visibility", WARNING, "visibility is not 0, 1 or 2", "trains on it; anything but 0 is visible",
         "none"),
    Kind("empty_file", NOTE, "empty label file", "trains on the image as background", "none"),
    Kind("no_label", NOTE, "image without a label file", "trains on the image as background", "none"),
    Kind("no_image", WARNING, "label file without an image", "never reads it", "none; the labels are lost"),
    Kind("bom", NOTE, "byte-order mark", "reads past it (since 8.4; older releases drop the image)", "none"),
    Kind("crlf", NOTE, "Windows line ends", "reads them", "none"),
    Kind("image_missing", ERROR, "listed image does not exist", _DROP, _LOST, drops=True),
    Kind("image_unreadable", ERROR, "image cannot be read", _DROP, _LOST, drops=True),
    Kind("image_small", ERROR, "image under 10 pixels", _DROP, _LOST, drops=True),
    Kind("image_tail", WARNING, "JPEG without its end mark",
         "rewrites the image file on disk, at quality 100",
         "none; the data set changes under you, also for other runs"),
    Kind("image_truncated", ERROR, "truncated image", "tries to mend the file, fails, and drops the image",
         _LOST, drops=True),
    Kind("image_unusual", WARNING, "image of an unusual mode", "decodes some of them", "none if decoded"),
    Kind("image_undecodable", ERROR, "image that passes the scan and cannot be decoded",
         "ends the training when its turn comes (FileNotFoundError: Image Not Found)",
         "no NaN from it; the training is over"),
    Kind("no_labels", ERROR, "no image has a label file",
         "trains on all of them as background, with a warning in the log",
         "no NaN from it; the training learns nothing"),
    Kind("path_missing", ERROR, "a path of data.yaml does not exist",
         "refuses to train (FileNotFoundError), or downloads the data set where data.yaml says from where",
         "none", blocks=True),
    Kind("list_unreadable", ERROR, "a list of images cannot be read", "refuses to train (FileNotFoundError)",
         "none", blocks=True),
    Kind("no_images", ERROR, "a split without images", "refuses to train (FileNotFoundError)", "none",
         blocks=True),
    Kind("pattern", ERROR, "a path of data.yaml is a pattern",
         "does not expand patterns: refuses to train (checked here all the same)", "none", blocks=True),
    Kind("boxes_in_segments", ERROR, "box rows in a segment or obb data set",
         "refuses to train when the numbers of boxes and polygons differ", "none", blocks=True),
    Kind("class_folders", ERROR, "class folders of the splits differ",
         "numbers each split's folders on its own or drops unknown ones: wrong targets",
         "none; metrics that mean nothing"),
    Kind("class_empty", WARNING, "class folder without images", "keeps the class: nothing to learn it from",
         "none"),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
