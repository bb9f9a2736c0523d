"""The codes of the check of sources, before anything is built.

KP60x name a reading that does not fit, KP61x what coordinates alone cannot tell, KP62x headers, KP63x pairing, KP64x
duplicates and classes, KP65x folds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keypatch.findings import Code

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOK: Final = "look at a patch with keypatch inspect STORE --patch I --png FILE"

CODES: Final[Mapping[str, Code]] = {
    "KP601": Code(
        "error",
        "No point of the annotation files of one kind lies inside its volume, of three or more.",
        "settle unit, axis order and zero with the flag that is named, or pair the right files",
    ),
    "KP602": Code(
        "warning",
        "Some points lie outside their volume; they are left out.",
        "check these rows, and unit, axis order and zero of the file",
    ),
    "KP603": Code(
        "warning", "Another axis order brings the points inside.", "give --axis-order if it is the right one"
    ),
    "KP604": Code(
        "warning",
        "Another unit, or a factor (binning, voxels of another spacing), brings the points inside.",
        "give --unit, --coordinate-spacing or --voxel-spacing if it is the right one",
    ),
    "KP605": Code("warning", "Another zero brings the points inside.", "give --zero if it is the right one"),
    "KP606": Code(
        "warning", "Counting from the other index base brings the points inside.", "give --index-base if it is right"
    ),
    "KP607": Code(
        "warning",
        "All points lie in so small a part of the volumes, next to zero, that a factor or another unit is likely.",
        f"give --unit, --coordinate-spacing or --voxel-spacing if it is the right one; else {_LOOK}",
    ),
    "KP608": Code(
        "warning",
        "All coordinates lie in 0 … 1 and are not read as fractions of the shape.",
        "give --unit fraction if they are",
    ),
    "KP611": Code(
        "note",
        "The points fit in more than one axis order: coordinates alone cannot tell which one is right.",
        _LOOK,
    ),
    "KP612": Code(
        "note",
        "The points would also fit if they were multiplied: coordinates alone cannot tell.",
        f"compare the spacing of the volumes that were picked; {_LOOK}",
    ),
    "KP613": Code(
        "note",
        "The format does not state all of what its coordinates mean: half a voxel, or one, is a matter of the program.",
        "find out from the program that wrote it; the flags that are named settle it",
    ),
    "KP614": Code(
        "note",
        "Every coordinate lies halfway between two voxel centres: it may name voxels by their corners.",
        "give --zero if whole voxels were meant",
    ),
    "KP615": Code(
        "note",
        "The points also fit with x and y turned round: coordinates alone cannot tell RAS from LPS.",
        f"see that the file's coordinate system is the one that it names; {_LOOK}",
    ),
    "KP621": Code(
        "warning",
        "Annotations state another voxel spacing than the header of their volume, which counts.",
        "give --voxel-spacing if the header is wrong, --coordinate-spacing if other voxels were picked",
    ),
    "KP622": Code(
        "warning",
        "Annotations state another shape than the header of their volume, which counts.",
        "see that volume and annotations belong together, and that neither is binned or cropped",
    ),
    "KP623": Code("warning", "A voxel spacing is not plausible.", "give --voxel-spacing"),
    "KP624": Code(
        "note",
        "A header states a spacing of exactly 1 Å, which programs write where they know none.",
        "give --voxel-spacing if it is another",
    ),
    "KP631": Code(
        "warning",
        "Volumes that no annotation file names are left out.",
        "give --unannotated negative if they hold nothing, or pair them with {volume} or --map",
    ),
    "KP632": Code(
        "warning",
        "Annotations are left out, as their volume was not given.",
        "give the volume, or pair the names with {volume} or --map",
    ),
    "KP633": Code(
        "note",
        "Several annotation files give points of one class in one volume, and all of them are used.",
        "give only one of them if they are versions of the same picks",
    ),
    "KP641": Code("warning", "Points are equal in place and class; the first of them counts.", "clean the files"),
    "KP642": Code(
        "warning",
        "Points of one class from different files lie less than a voxel apart, and both are used.",
        "give only one of the files if they are versions of the same picks",
    ),
    "KP643": Code("note", "A class has a single member.", "see that its name is not a slip; --classes leaves it out"),
    "KP644": Code(
        "warning",
        "Names of classes differ only by case, blanks, dashes or underscores.",
        "write one name in the files, or choose classes with --classes",
    ),
    "KP651": Code("error", "There are fewer volumes than folds.", "lower --folds, or give more volumes"),
    "KP652": Code(
        "note",
        "A class lies in fewer volumes than there are folds, so that some folds have none of it.",
        "lower --folds, or mind it when a fold is scored",
    ),
}
"""Every code: severity, meaning, cure. A code keeps its meaning for ever; new ones are added behind."""
