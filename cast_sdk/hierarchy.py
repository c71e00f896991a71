"""Level maps and the segment tree of one image, from the composed labels of its superpixels. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import shown, whole
from cast_sdk.errors import ArtifactError, InputError

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Hierarchy:
    """A partition of an image that nests: every segment of level l lies inside exactly one segment of level l+1.

    Level 0 holds the superpixels, the last level the coarsest segments. Segments of each level are numbered
    0..n-1 without gaps: superpixels without a pixel and clusters that no superpixel chose are left out.

    Attributes:
        superpixels: int32 [h, w], the level-0 segment of each pixel.
        members: one int32 [n_0] per level: each superpixel's segment of that level (`members[0]` counts up).
        ids: one int32 [n_l] per level, the model's own number of each segment (superpixel label or cluster index).
    """

    superpixels: Labels
    members: tuple[Labels, ...]
    ids: tuple[Labels, ...]

    @classmethod
    def from_labels(cls, superpixels: npt.ArrayLike, levels: Sequence[npt.ArrayLike] = ()) -> Hierarchy:
        """Build the hierarchy of one image.

        Args:
            superpixels: integer [h, w], labels in 0..S-1; not every label needs a pixel.
            levels: one integer [S] per level, fine to coarse: the cluster of each superpixel, already composed.

        Raises:
            InputError: for a label map that is not two-dimensional, is empty or exceeds S.
            ArtifactError: when two superpixels that share a segment part again at a coarser level.
        """
        label_map = np.asarray(superpixels)
        if label_map.ndim != 2 or label_map.size == 0 or label_map.dtype.kind not in "iu":
            raise InputError(
                "The superpixels are not a label map of integers [height, width].",
                found=f"{label_map.dtype} {list(label_map.shape)}",
            )
        composed = [np.asarray(level) for level in levels]
        lowest, highest = int(label_map.min()), int(label_map.max())
        count = min((len(level) for level in composed), default=highest + 1)
        if lowest < 0 or highest >= count:
            raise InputError(
                f"The label map has labels {lowest}..{highest}, and this model takes 0..{count - 1}.",
                remedy="make the label map with cast_sdk.superpixels and the model's own settings",
            )
        used = np.bincount(label_map.ravel(), minlength=count) > 0
        present = np.flatnonzero(used).astype(np.int32)
        renumber = (np.cumsum(used) - 1).astype(np.int32)
        members, ids = [np.arange(len(present), dtype=np.int32)], [present]
        for number, level in enumerate(composed, start=1):
            clusters, inverse = np.unique(level[present], return_inverse=True)
            member = inverse.reshape(-1).astype(np.int32)
            if not np.array_equal(parents_of(members[-1], member)[members[-1]], member):
                raise ArtifactError(
                    f"The levels do not nest: level {number} splits a segment of level {number - 1}.",
                    remedy="export the model again; its level outputs must be composed fine to coarse",
                )
            members.append(member)
            ids.append(clusters.astype(np.int32))
        return cls(renumber[label_map], tuple(members), tuple(ids))

    @property
    def num_levels(self) -> int:
        """Levels above the superpixels."""
        return len(self.members) - 1

    def check_level(self, level: int) -> int:
        """Return `level`; raises InputError for one that the hierarchy does not have."""
        try:
            return whole(level, "level", 0, self.num_levels)
        except InputError as error:
            raise InputError(
                f"There is no level {shown(level)}.",
                remedy=f"choose 0..{self.num_levels}: the superpixels, then the model's levels, fine to coarse",
            ) from error

    def num_segments(self, level: int) -> int:
        return len(self.ids[self.check_level(level)])

    def labels(self, level: int) -> Labels:
        """Segment of each pixel at a level: int32 [h, w]."""
        if self.check_level(level) == 0:
            return self.superpixels
        return self.members[level][self.superpixels]

    def parents(self, level: int) -> Labels:
        """`parents(l)[i]` is the segment of level l+1 that holds segment i of level l: int32 [n_l].

        Raises:
            InputError: for the coarsest level, which has no parents.
        """
        if self.check_level(level) == self.num_levels:
            raise InputError(
                f"Level {level} is the coarsest and has no parents.", remedy=f"ask for a level below {self.num_levels}"
            )
        return parents_of(self.members[level], self.members[level + 1])

    def ancestors(self, level: int, coarser: int) -> Labels:
        """`ancestors(l, m)[i]` is the segment of the coarser level m that holds segment i of level l: int32 [n_l]."""
        if self.check_level(level) > self.check_level(coarser):
            raise InputError(
                f"Level {coarser} is finer than level {level} and holds none of its ancestors.",
                remedy=f"ask for a level from {level} to {self.num_levels}",
            )
        return parents_of(self.members[level], self.members[coarser])

    def children(self, level: int, segment: int) -> Labels:
        """Segments of level l-1 inside segment `segment` of level l: int32, ascending."""
        if self.check_level(level) == 0:
            raise InputError("Level 0 holds the superpixels, which have no children.", remedy="ask for a level from 1")
        whole(segment, "segment", 0, self.num_segments(level) - 1)
        return np.flatnonzero(self.parents(level - 1) == segment).astype(np.int32)

    def areas(self, level: int) -> npt.NDArray[np.int64]:
        """Pixels of each segment at a level: int64 [n_l]."""
        return np.bincount(self.labels(level).ravel(), minlength=self.num_segments(level))


def parents_of(fine: Labels, coarse: Labels) -> Labels:
    """Segment of the coarser level for each of the finer one, from two memberships (`Hierarchy.members`)."""
    parents = np.zeros(int(fine.max()) + 1, np.int32)
    parents[fine] = coarse
    return parents
