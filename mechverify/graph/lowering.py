"""ATen operations in the graph's operations, as a table: a call is folded, moved, tabulated or handed to its row.

What depends on no input is computed at once, in float64, unless weights would be rounded by it: their arithmetic stays
in the graph. What only moves entries runs on their numbers 0, 1, 2, ... and becomes views. A function of single token
ids is tabulated over the vocabulary. The rows stand beside it, by kind: arithmetic.py, reductions.py, normalisation.py,
convolution.py, attention.py, sorting.py, comparing.py, scattering.py.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mechverify.graph import (
    arithmetic,
    attention,
    comparing,
    convolution,
    normalisation,
    reductions,
    scattering,
    sorting,
)
from mechverify.graph.arithmetic import broadcast
from mechverify.graph.build import Builder, NotLowered, Operand, Value
from mechverify.graph.scattering import is_float

_MOVED = """
view _unsafe_view reshape permute transpose t numpy_T mT slice select expand expand_as view_as reshape_as unsqueeze
squeeze flatten unflatten ravel flip fliplr flipud rot90 roll repeat tile index_select unfold im2col diagonal split
split_with_sizes chunk unbind movedim moveaxis swapaxes swapdims narrow clone contiguous detach alias lift_fresh
lift_fresh_copy repeat_interleave pixel_shuffle pixel_unshuffle channel_shuffle broadcast_to gather take as_strided
reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d upsample_nearest1d upsample_nearest2d
alias_copy view_copy permute_copy transpose_copy expand_copy unsqueeze_copy squeeze_copy slice_copy select_copy
"""
_EXACT = """
where masked_fill cat stack tril triu constant_pad_nd embedding neg abs relu index maximum minimum clamp clamp_min
clamp_max amax amin max min _to_copy to copy fill select_scatter slice_scatter index_put scatter dropout
sort topk kthvalue msort
"""
MOVED = set(_MOVED.split())
EXACT = set(_EXACT.split())  # what rounds nothing
LIKE = {"expand_as", "view_as", "reshape_as"}  # another operand gives a shape alone
SHAPE_ALONE = {
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
}
UNSET = {
    "empty",
    "empty_like",
    "new_empty",
    "empty_permuted",
    "empty_strided",
    "new_empty_strided",
}
SAME = {"clone", "contiguous", "detach", "alias", "lift_fresh", "lift_fresh_copy"}
CASTS = {"_to_copy", "to"}
FLOATS = (torch.float16, torch.bfloat16, torch.float32)

_JUMP = "it jumps: let the claim round or take the sign of what comes before"
_MATRIX = (
    "of weights it would be rounded: compute it once and keep the result as a parameter or buffer (a parametrization: "
    "torch.nn.utils.parametrize.remove_parametrizations); of an input there is no row for it"
)
_CAST = "it rounds real numbers to integers, which jumps: keep them real, and let the claim round"
_WRAPS = "integers of {} may wrap here, and the graph's don't: turn them into floats first, with .float()"
_ROUNDS = (
    "it rounds to {} in a module of {}, or overflows, and a graph of real numbers doesn't: leave the cast out, or give "
    "the whole module and its inputs in that type"
)
_RANK = "let the claim compare the values instead; max over an axis is amax, and values may be sorted"
HINTS = {
    **dict.fromkeys(["argsort", "argmax", "argmin", "median", "mode"], _RANK),
    **dict.fromkeys(["isnan", "isinf"], "the graph's numbers are real: leave it out"),
    **dict.fromkeys(["sign", "sgn", "floor", "ceil", "round", "trunc", "frac", "remainder", "fmod", "heaviside",
                     "floor_divide"], _JUMP),
    **dict.fromkeys(["lstm", "gru", "rnn_tanh", "rnn_relu"], "write the steps out with linear, tanh and sigmoid"),
    **dict.fromkeys(["complex", "view_as_complex", "view_as_real", "polar", "angle", "real", "imag", "_fft_r2c",
                     "_fft_c2c", "_fft_c2r"], "complex numbers: write sines and cosines as real matrices"),
    **dict.fromkeys(["nonzero", "unique", "_unique2", "masked_select", "bincount", "histc", "item"],
                    "its shape or value depends on the input: use a mask that doesn't, or one_hot"),
    "_local_scalar_dense": "item() reads a value of the input: keep it a tensor",
    "native_dropout": "dropout in training: call eval(), or F.dropout(..., training=self.training)",
    **dict.fromkeys(["linalg_inv_ex", "_linalg_solve_ex", "linalg_pinv", "_linalg_det", "_linalg_slogdet", "linalg_qr",
                     "linalg_cholesky_ex", "_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_eigvals", "linalg_lu",
                     "linalg_matrix_exp", "linalg_householder_product", "linalg_ldl_factor_ex", "linalg_lstsq",
                     "linalg_lu_factor_ex", "triangular_solve", "linalg_solve_triangular", "cholesky_solve"], _MATRIX),
    "embedding_renorm": "max_norm rescales the table: apply it to the weight once, then set max_norm=None",
    **dict.fromkeys(["_embedding_bag", "_embedding_bag_forward_only"], "use nn.Embedding, then a sum over positions"),
    "cdist": "write the distance out: (a - b).pow(2).sum(-1)",
}  # fmt: skip


def name_of(op: Any) -> str:
    return op._schema.name.split("::")[1]


def dropout(b: Builder, x: Operand, p: float, train: bool) -> Operand:
    if train and p:
        raise NotLowered(
            "dropout in training: call eval(), or F.dropout(..., training=self.training)"
        )
    return x


def cast(b: Builder, x: Operand, *args: Any) -> Operand:
    return x


ROWS = {
    **arithmetic.ROWS,
    **reductions.ROWS,
    **sorting.ROWS,
    **normalisation.ROWS,
    **convolution.ROWS,
    **attention.ROWS,
    **comparing.ROWS,
    **scattering.ROWS,
    "fill": lambda b, x, y: broadcast(b, y, x),
    "copy": lambda b, x, y, *_: broadcast(b, y, x),
    "dropout": dropout,
    "_to_copy": cast,
    "to": cast,
}

CONSTANTS = {
    "arange",
    "full",
    "zeros",
    "ones",
    "eye",
    "scalar_tensor",
    "_assert_tensor_metadata",
}
KNOWN = (
    ROWS.keys() | MOVED | SHAPE_ALONE | CONSTANTS | UNSET
)  # what torch needn't take apart


class Lowering:
    """Applies ATen calls to operands."""

    def __init__(self, builder: Builder, ids: Tensor, dtype: torch.dtype):
        """`ids` [vocab]: the token ids, in the type that the module is given; `dtype`: the module's float type."""
        self.b, self.ids, self.dtype = builder, ids, dtype
        self.sizes: dict[
            int, int
        ] = {}  # of nodes that are integers in torch: their largest absolute value
        self._derived: dict[
            int, Tensor
        ] = {}  # memory that holds entries of weights; kept, so that it isn't reused

    def __call__(self, op: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What the call gives: values, tensors, numbers or a tuple of them. Raises NotLowered."""
        args, kwargs = pytree.tree_map(double, (args, kwargs))
        leaves = _leaves((args, kwargs))
        for leaf in leaves:
            if isinstance(leaf, NotLowered):
                raise leaf
        name, values = name_of(op), [a for a in leaves if isinstance(a, Value)]
        if any(
            isinstance(a, complex) or (isinstance(a, Tensor) and a.is_complex())
            for a in leaves
        ):
            raise NotLowered(HINTS["complex"])
        if torch.Tag.nondeterministic_seeded in op.tags and name not in ROWS:
            raise NotLowered(
                HINTS.get(
                    name, "random numbers: a claim is about a function of the input"
                )
            )
        if not values:
            return self._fold(op, name, args, kwargs, leaves)
        if name in SHAPE_ALONE | UNSET:
            result = op(torch.zeros(self.b.shape(args[0])), *args[1:], **kwargs)
            return torch.zeros_like(result) if name in UNSET else result
        if name in MOVED:
            return self._move(op, name, args, kwargs)
        ids = [v for v in values if self._is_ids(v)]
        pointwise = name in CASTS or torch.Tag.pointwise in op.tags
        if ids and pointwise and name not in ("where", "masked_fill"):
            others = [a for a in leaves if isinstance(a, Tensor) and a.numel() > 1]
            if all(v.node == ids[0].node for v in values) and not others:
                return self._tabulate(op, ids[0], args, kwargs)
            args = pytree.tree_map(
                lambda a: self._real(a) if _is_value(a) else a, args, is_leaf=_is_value
            )
        return self._row(op, name, args, kwargs)

    def _is_ids(self, x: Value) -> bool:
        return self.b.graph.nodes[x.node].kind == "ids"

    def _row(self, op: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        row = ROWS.get(f"{name}.{op._overloadname}") or ROWS.get(name)
        if row is None:
            raise NotLowered(
                HINTS.get(
                    name,
                    "rewrite it with supported operations, or add a row to graph/lowering.py",
                )
            )
        full = [args[k] if k < len(args) else kwargs.get(a.name, a.default_value)
                for k, a in enumerate(op._schema.arguments)]  # fmt: skip
        while full and full[-1] is None:
            full.pop()
        return row(self.b, *(None if isinstance(a, torch.dtype) else a for a in full))

    def _fold(
        self, op: Any, name: str, args: tuple, kwargs: dict[str, Any], leaves: list
    ) -> Any:
        if name in SAME:
            return args[0]
        weights = [a for a in leaves if is_float(a) and self._is_derived(a)]
        result = op(*args, **kwargs)
        if (
            name in UNSET
        ):  # whatever the memory held; a program writes to all of it before it reads
            return torch.zeros_like(result)
        if weights:
            parts = [r for r in pytree.tree_leaves(result) if is_float(r)]
            if name in MOVED or name in EXACT:
                self._derived |= {r.untyped_storage().data_ptr(): r for r in parts}
            elif (
                parts
                and all(bool(torch.isfinite(a).all()) for a in (*weights, *parts))
                and name not in SHAPE_ALONE
            ):
                return self._row(op, name, args, kwargs)
        return result

    def _is_derived(self, x: Tensor) -> bool:
        return self.b.is_state(x) or x.untyped_storage().data_ptr() in self._derived

    def _move(self, op: Any, name: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if name in LIKE:
            args = args[0], torch.zeros(self.b.shape(args[1]))
        x, *rest = args
        if any(isinstance(a, Value) for a in _leaves((rest, kwargs))):
            raise NotLowered("an index that depends on the input: multiply by one_hot")
        shape = self.b.shape(x)
        result = op(torch.zeros(shape), *rest, **kwargs)
        if isinstance(result, Tensor):
            return self.b.moved(x, lambda a: op(a, *rest, **kwargs))
        return tuple(
            self.b.moved(x, lambda a, k=k: op(a, *rest, **kwargs)[k])
            for k in range(len(result))
        )

    def _tabulate(
        self, op: Any, x: Value, args: tuple, kwargs: dict[str, Any]
    ) -> Value:
        args = pytree.tree_map(
            lambda a: self._table(a) if _is_value(a) else a, args, is_leaf=_is_value
        )
        result = op(*args, **kwargs)
        out = Value(x.node, table=result)
        return self._real(out) if result.is_floating_point() else out

    def _real(self, x: Value) -> Value:
        """Token ids as numbers."""
        if not self._is_ids(x):
            return x
        if x.table is not None and x.table.dtype == torch.bool:
            return comparing.truth_of(self.b, x)
        return attention.embedding(self.b, self._table(x).double(), Value(x.node))

    def _table(self, x: Value) -> Tensor:
        return self.ids if x.table is None else x.table

    def check(
        self, op: Any, args: tuple, kwargs: dict[str, Any], value: Any, types: Any
    ) -> None:
        """Refuses what a call has computed if its type (`types`: tensors of the program's types) holds less than real
        numbers do, so that torch rounds or wraps where the graph doesn't."""
        for x, like in zip(_leaves(value), pytree.tree_leaves(types), strict=False):
            if not isinstance(x, Value | Tensor) or (
                isinstance(x, Value) and self._is_ids(x)
            ):
                continue
            if like.dtype.is_floating_point:
                if not _holds(like.dtype, self.dtype) and not _exactly(x, like.dtype):
                    raise NotLowered(
                        _ROUNDS.format(
                            *(
                                str(t).removeprefix("torch.")
                                for t in (like.dtype, self.dtype)
                            )
                        )
                    )
            elif isinstance(x, Value) and x.node in self.b.truths:
                self.sizes[x.node] = 1
            elif isinstance(x, Value):
                size = self._whole(name_of(op), _leaves(args), kwargs, like)
                if (
                    size is None
                    or like.dtype == torch.bool
                    or size > torch.iinfo(like.dtype).max
                ):
                    raise NotLowered(
                        _CAST
                        if size is None
                        else _WRAPS.format(str(like.dtype).removeprefix("torch."))
                    )
                self.sizes[x.node] = size

    def _whole(
        self, name: str, operands: list, kwargs: dict[str, Any], result: Tensor
    ) -> int | None:
        """How large integers computed from tokens can be; None if they come from real numbers, or may be rounded."""
        known = [
            self._size(a)
            for a in operands
            if isinstance(a, Value | Tensor | int | float)
        ]
        sizes = [size for size in known if size is not None]
        if name == "one_hot":
            return 1
        if len(sizes) < len(known) or "alpha" in kwargs:
            return None
        if name in ("sub", "rsub", "neg") and not result.dtype.is_signed:
            return 2**64
        if name in ("add", "sub", "rsub"):
            return sum(sizes)
        if name == "mul":
            return math.prod(sizes)
        if name == "sum":
            return sizes[0] * math.prod(self.b.shape(operands[0]))
        return max(sizes) if name in MOVED | EXACT | CASTS else None

    def _size(self, x: Operand) -> int | None:
        """The largest absolute value of integers, where it is known."""
        if isinstance(x, Value):
            return (
                int(self._table(x).long().abs().max())
                if self._is_ids(x)
                else self.sizes.get(x.node)
            )
        if isinstance(x, Tensor):
            return (
                None
                if x.is_floating_point()
                else int(x.long().abs().max())
                if x.numel()
                else 0
            )
        return abs(x) if isinstance(x, int) else None


def double(a: Any) -> Any:
    """Floats are real numbers here, whatever precision a program asks for."""
    return torch.float64 if isinstance(a, torch.dtype) and a in FLOATS else a


def _holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether it holds all that the other type holds, up to underflow."""
    a, b = torch.finfo(dtype), torch.finfo(other)
    return a.eps <= b.eps and a.max >= b.max


def _exactly(x: Value | Tensor, dtype: torch.dtype) -> bool:
    """Whether a constant has these very numbers in that type."""
    return isinstance(x, Tensor) and bool((x.to(dtype).double() == x.double()).all())


def _is_value(a: Any) -> bool:
    return isinstance(a, Value)


def _leaves(tree: Any) -> list:
    return pytree.tree_leaves(tree, is_leaf=_is_value)
