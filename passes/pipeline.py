"""THE list of passes, in order, the facts about that order, and the function that runs it.

Every pass takes a verified module, leaves a verified one, and says truly whether it changed anything. The driver owns
options, times and dumps; it is told about each pass through `observe`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Protocol

from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Module
from nxcc.passes.arg_reductions import ArgReductions
from nxcc.passes.canonicalize_convolution import CanonicalizeConvolution
from nxcc.passes.canonicalize_dot import CanonicalizeDot
from nxcc.passes.chosen_places import ChosenPlaces
from nxcc.passes.common_subexpressions import CommonSubexpressions
from nxcc.passes.convolution_products import ConvolutionProducts
from nxcc.passes.cost import ImageCapacity, RowCapacity
from nxcc.passes.dead_code import DeadCode
from nxcc.passes.dtypes.autocast import Autocast
from nxcc.passes.dtypes.byte_products import ByteProducts
from nxcc.passes.dtypes.cast_before_slices import CastBeforeSlices
from nxcc.passes.dtypes.cast_products import CastProducts
from nxcc.passes.dtypes.convert_outside import ConvertOutside
from nxcc.passes.dtypes.exact_quotients import ExactQuotients
from nxcc.passes.dtypes.legalize_dtypes import LegalizeDtypes
from nxcc.passes.dtypes.narrow_selections import NarrowSelections
from nxcc.passes.dtypes.round_products import RoundProducts
from nxcc.passes.dtypes.widen_dtypes import WidenDtypes
from nxcc.passes.early_gathers import EarlyGathers
from nxcc.passes.expansions.expand_batch_norm import ExpandBatchNorm
from nxcc.passes.expansions.expand_collectives import ExpandCollectives
from nxcc.passes.expansions.expand_custom_calls import ExpandCustomCalls
from nxcc.passes.expansions.expand_products import ExpandProducts
from nxcc.passes.expansions.expand_random import ExpandRandom
from nxcc.passes.expansions.expand_scan import ExpandScan
from nxcc.passes.expansions.expand_windows import ExpandWindows
from nxcc.passes.fold_constants import FoldConstants
from nxcc.passes.fusing.chain_regions import ChainRegions
from nxcc.passes.fusing.fold_layers import FoldLayers, UnfoldLayers
from nxcc.passes.fusing.fusion import Fusion
from nxcc.passes.fusing.image_fusion import ImageFusion
from nxcc.passes.fusing.left_out import LeftOut, leave_out
from nxcc.passes.fusing.merge_regions import MergeRegions
from nxcc.passes.fusing.scan_fusion import ScanFusion
from nxcc.passes.inline_calls import InlineCalls
from nxcc.passes.kernel_gradients import KernelGradients
from nxcc.passes.known_gathers import KnownGathers
from nxcc.passes.loops.sum_states import SumStates
from nxcc.passes.loops.unroll_loops import KnownPlaces, UnrollLoops
from nxcc.passes.loops.vectorize_loops import VectorizeLoops
from nxcc.passes.masked_rows import MaskedRows
from nxcc.passes.move_reshapes import MoveReshapes
from nxcc.passes.normalize_layouts import NormalizeLayouts
from nxcc.passes.notes import Note, Report, unheard
from nxcc.passes.pack_groups import PackGroups
from nxcc.passes.patch_products import PatchProducts
from nxcc.passes.recognize_functions import RecognizeFunctions
from nxcc.passes.scale_later import ScaleLater
from nxcc.passes.separate_results import SeparateResults
from nxcc.passes.short_iotas import ShortIotas
from nxcc.passes.simplify import Simplify
from nxcc.passes.split_products import SplitProducts
from nxcc.passes.split_reductions import SplitReductions
from nxcc.passes.split_scatters import SplitScatters
from nxcc.passes.store_transposed import StoreTransposed
from nxcc.passes.sum_batches import SumBatches
from nxcc.passes.sums_as_products import SumsAsProducts


class Pass(Protocol):
    """One rewriting step; a frozen dataclass whose fields are its options."""

    @property
    def name(self) -> str: ...

    def run(self, module: Module) -> bool:
        """Rewrite the module in place; whether anything changed."""


@dataclass(frozen=True)
class Settings:
    """What decides which passes run: options, the target's answers to their questions, and who hears their notes.

    weights: numbers of the entry parameters that are declared weights. is_straight: the target has neither branches nor
    addresses from data. exact_up_to: how many elements products may read and still keep what is not finite in its place.
    window_cells: of windows that it folds cell by cell, at most; None: any. dtypes: element types that it has, product_dtypes:
    that its tensor engine multiplies; empty: any. piece_bytes: of a matrix that one product may read, 0: any.
    """

    optlevel: int
    auto_cast: str
    auto_cast_type: str
    row_capacity: RowCapacity
    image_capacity: ImageCapacity
    report: Report = unheard
    weights: frozenset[int] = frozenset()
    is_straight: bool = False
    multiply_f8e4m3fn: bool = False
    exact_up_to: float = 0
    dtypes: frozenset[DType] = frozenset()
    product_dtypes: frozenset[DType] = frozenset()
    window_cells: int | None = None
    piece_bytes: int = 0


@dataclass(frozen=True)
class Step:
    """A place in the pipeline: the pass's name, how it is made from the settings, and the level from which it runs.

    Level 0 has only the steps without which a module would not compile, or would not mean what the options say.
    """

    name: str
    make: Callable[[Settings], Pass]
    level: int


SIMPLIFY_FOLDED = "simplify-folded"
REUSE_CASTS = "common-casts"


def _autocast(settings: Settings) -> Pass:
    return Autocast(settings.auto_cast, settings.auto_cast_type, settings.weights, settings.report)


STEPS: tuple[Step, ...] = (
    Step("expand-random", lambda settings: ExpandRandom(settings.is_straight), 0),
    Step("expand-scan", lambda settings: ExpandScan(), 0),
    Step("inline-calls", lambda settings: InlineCalls(), 0),
    Step("normalize-layouts", lambda settings: NormalizeLayouts(), 0),
    Step("expand-collectives", lambda settings: ExpandCollectives(), 0),
    Step("expand-batch-norm", lambda settings: ExpandBatchNorm(), 0),
    Step("expand-custom-calls", lambda settings: ExpandCustomCalls(), 0),
    Step("expand-products", lambda settings: ExpandProducts(), 0),
    Step("pack-groups", lambda settings: PackGroups(settings.exact_up_to == inf), 1),
    Step("vectorize-loops", lambda settings: VectorizeLoops(settings.report), 1),
    Step("unroll-loops", lambda settings: UnrollLoops(settings.is_straight, settings.report), 0),
    Step("simplify", lambda settings: Simplify(), 1),
    Step("fold-constants", lambda settings: FoldConstants(), 0),
    Step("known-places", lambda settings: KnownPlaces(settings.is_straight), 0),
    Step(SIMPLIFY_FOLDED, lambda settings: Simplify(SIMPLIFY_FOLDED), 1),
    Step("convert-outside", lambda settings: ConvertOutside(settings.dtypes), 0),
    Step("narrow-selections", lambda settings: NarrowSelections(), 0),
    Step("widen-dtypes", lambda settings: WidenDtypes(settings.dtypes, settings.report, settings.multiply_f8e4m3fn), 0),
    Step("legalize-dtypes", lambda settings: LegalizeDtypes(), 0),
    Step("expand-windows", lambda settings: ExpandWindows(settings.window_cells, settings.dtypes), 0),
    Step("known-gathers", lambda settings: KnownGathers(settings.is_straight), 1),
    Step("chosen-places", lambda settings: ChosenPlaces(settings.is_straight), 1),
    Step("early-gathers", lambda settings: EarlyGathers(not settings.is_straight), 1),
    Step("byte-products", lambda settings: ByteProducts(), 1),
    Step("convolution-products", lambda settings: ConvolutionProducts(), 1),
    Step("patch-products", lambda settings: PatchProducts(), 1),
    Step("kernel-gradients", lambda settings: KernelGradients(settings.exact_up_to), 1),
    Step("sum-states", lambda settings: SumStates(), 1),
    Step("sum-batches", lambda settings: SumBatches(), 1),
    Step("canonicalize-dot", lambda settings: CanonicalizeDot(), 1),
    Step("move-reshapes", lambda settings: MoveReshapes(), 1),
    Step("recognize-functions", lambda settings: RecognizeFunctions(), 1),
    Step("common-subexpressions", lambda settings: CommonSubexpressions(), 1),
    Step("autocast", _autocast, 0),
    Step("cast-products", lambda settings: CastProducts(settings.product_dtypes, settings.auto_cast_type, settings.report), 0),
    Step("canonicalize-convolution", lambda settings: CanonicalizeConvolution(), 1),
    Step("cast-before-slices", lambda settings: CastBeforeSlices(), 1),
    Step(REUSE_CASTS, lambda settings: CommonSubexpressions(REUSE_CASTS), 1),
    Step("round-products", lambda settings: RoundProducts(), 1),
    Step("store-transposed", lambda settings: StoreTransposed(settings.weights), 1),
    Step("split-products", lambda settings: SplitProducts(settings.weights, settings.piece_bytes), 1),
    Step("masked-rows", lambda settings: MaskedRows(), 1),
    Step("scale-later", lambda settings: ScaleLater(), 1),
    Step("exact-quotients", lambda settings: ExactQuotients(), 0),
    Step("arg-reductions", lambda settings: ArgReductions(), 1),
    Step("split-reductions", lambda settings: SplitReductions(), 1),
    Step("split-scatters", lambda settings: SplitScatters(), 1),
    Step("dead-code", lambda settings: DeadCode(), 0),
    Step("separate-results", lambda settings: SeparateResults(), 0),
    Step("short-iotas", lambda settings: ShortIotas(), 1),
    Step("fold-layers", lambda settings: FoldLayers(), 1),
    Step("image-fusion", lambda settings: ImageFusion(settings.image_capacity), 1),
    Step("scan-fusion", lambda settings: ScanFusion(settings.row_capacity), 1),
    Step("fusion", lambda settings: Fusion(settings.row_capacity), 1),
    Step("merge-regions", lambda settings: MergeRegions(settings.row_capacity), 1),
    Step("unfold-layers", lambda settings: UnfoldLayers(), 1),
    Step("sums-as-products", lambda settings: SumsAsProducts(settings.product_dtypes), 1),
    Step("chain-regions", lambda settings: ChainRegions(settings.row_capacity), 1),
)

ORDER: tuple[tuple[str, str, str], ...] = (
    ("inline-calls", "vectorize-loops", "a body is plain once its calls are gone"),
    ("vectorize-loops", "unroll-loops", "all turns at once are less code than one after the other"),
    ("expand-random", "inline-calls", "an instruction's name is its key, which copies must not change"),
    ("expand-scan", "inline-calls", "a turn of its loop calls the scan's computation"),
    ("inline-calls", "unroll-loops", "a body counts plainly once its calls are gone"),
    ("normalize-layouts", "unroll-loops", "a body's layouts are looked at once"),
    ("unroll-loops", "simplify", "what a turn does not change is found again in the next one"),
    ("fold-constants", "known-places", "places are computed from the counter"),
    ("known-places", "chosen-places", "a place that is known needs no choice"),
    ("known-gathers", "chosen-places", "a place that is known needs no choice"),
    ("legalize-dtypes", "expand-windows", "sums that fit 32 bits are folded by the engines themselves"),
    ("legalize-dtypes", "chosen-places", "places are 32-bit numbers"),
    ("chosen-places", "autocast", "bits of what is chosen are no numbers to cast"),
    ("autocast", "cast-products", "what the user asked for comes first"),
    ("inline-calls", "normalize-layouts", "an inlined body has layouts of its own"),
    ("normalize-layouts", "simplify", "rules forget layouts, which a bitcast would still read"),
    ("inline-calls", "expand-collectives", "pairs around a wrapped collective dissolve into the plain one"),
    ("expand-collectives", "simplify", "slices and zeros are left that simplify away"),
    ("expand-batch-norm", "simplify", "its tuple of results dissolves"),
    ("inline-calls", "expand-custom-calls", "markers are gone, and what is left has a meaning of its own"),
    ("expand-custom-calls", "fusion", "what it writes are row programs"),
    ("exact-quotients", "arg-reductions", "of what is compared there, one is the other"),
    ("legalize-dtypes", "arg-reductions", "places are 32-bit numbers"),
    ("arg-reductions", "short-iotas", "places are found as they are written"),
    ("known-gathers", "short-iotas", "places are known from iotas as they are"),
    ("short-iotas", "fold-layers", "what layers share is there before they are found"),
    ("pack-groups", "fold-constants", "kernels that are known are packed once"),
    ("pack-groups", "canonicalize-convolution", "the kernel that is multiplied lies as partitions read it"),
    ("expand-products", "autocast", "what is multiplied may be cast"),
    ("expand-products", "canonicalize-dot", "a product over groups has two contracted dimensions"),
    ("simplify", "fold-constants", "work on repeated numbers is small once it is done before they are repeated"),
    ("fold-constants", SIMPLIFY_FOLDED, "a folded predicate or index decides what reads it"),
    ("fold-constants", "narrow-selections", "initial values are numbers once they are folded"),
    ("fold-constants", "widen-dtypes", "what is known is computed in the type that it has"),
    ("expand-products", "widen-dtypes", "a scaled product is a plain one of f32 then"),
    (SIMPLIFY_FOLDED, "convert-outside", "a conversion stands before what repeats its number"),
    ("convert-outside", "legalize-dtypes", "both change the interface; each leaves the other's types alone"),
    ("widen-dtypes", "legalize-dtypes", "both change the interface; each leaves the other's types alone"),
    ("widen-dtypes", "autocast", "a weight may be cast again"),
    ("narrow-selections", "legalize-dtypes", "what was widened for nothing needs no proof"),
    (SIMPLIFY_FOLDED, "legalize-dtypes", "less is left whose range must be proved"),
    (SIMPLIFY_FOLDED, "recognize-functions", "numbers are numbers once they are folded"),
    ("move-reshapes", "recognize-functions", "a reshape passes through elementwise work, not through a call"),
    ("recognize-functions", "fusion", "a known function is one instruction of a region"),
    ("legalize-dtypes", "fusion", "a region is computed in the dtypes that it has"),
    (SIMPLIFY_FOLDED, "canonicalize-dot", "the dot of a simplified operand needs fewer transposes"),
    ("legalize-dtypes", "early-gathers", "places are 32-bit numbers"),
    (SIMPLIFY_FOLDED, "early-gathers", "rows that are counted are counts once nothing is added to them"),
    ("early-gathers", "move-reshapes", "a turned table's transposes meet others"),
    ("legalize-dtypes", "byte-products", "sums are 32-bit numbers"),
    ("byte-products", "autocast", "its products have their type already"),
    ("convolution-products", "canonicalize-dot", "a product has its dimensions in any order"),
    ("patch-products", "canonicalize-dot", "a product of patches sums several dimensions"),
    ("canonicalize-dot", "move-reshapes", "reshapes pass through dots in normal form only"),
    ("move-reshapes", "common-subexpressions", "equal work is equal once its reshapes are gone"),
    ("common-subexpressions", "fusion", "a region must not hold what another one computes too"),
    ("move-reshapes", "autocast", "a conversion moves up through the reshapes that are left"),
    ("common-subexpressions", "autocast", "each value is cast once"),
    ("legalize-dtypes", "autocast", "both change parameters, and integers come first"),
    ("autocast", "cast-before-slices", "casts of parts are there"),
    ("cast-products", "cast-before-slices", "casts of parts are there"),
    ("cast-before-slices", REUSE_CASTS, "a value that is cast already is not cast again"),
    ("cast-before-slices", "round-products", "a product is rounded once where all of its parts are"),
    ("autocast", REUSE_CASTS, "views before a cast may have been copied for it"),
    ("cast-products", "round-products", "a product is rounded in the type in which it is multiplied"),
    ("round-products", "fusion", "a product that is only rounded is no region"),
    (REUSE_CASTS, "store-transposed", "a constant that is read in one order only has one transpose"),
    ("autocast", "canonicalize-convolution", "casts of images are there"),
    ("cast-products", "canonicalize-convolution", "casts of images are there"),
    ("canonicalize-convolution", REUSE_CASTS, "casts that have moved may be there already"),
    ("canonicalize-convolution", "store-transposed", "the kernel's transpose is done once"),
    ("dead-code", "image-fusion", "a dead user would end a region"),
    ("separate-results", "fold-layers", "a result that is a copy would be another layer"),
    ("dead-code", "fold-layers", "what nobody reads would tell layers apart"),
    ("store-transposed", "split-products", "pieces are cut from matrices as they are stored"),
    ("split-products", "fold-layers", "layers are equal piece by piece"),
    ("split-products", "dead-code", "the whole products are read no more"),
    (REUSE_CASTS, "fold-layers", "what layers share stands before them"),
    ("fold-layers", "image-fusion", "regions of equal layers are formed once"),
    ("merge-regions", "unfold-layers", "what it does in a layer it does in all"),
    ("unfold-layers", "sums-as-products", "only sums that no region takes are left"),
    ("autocast", "sums-as-products", "what a sum reads is not rounded"),
    ("unfold-layers", "chain-regions", "a chain may reach from layer to layer"),
    ("separate-results", "image-fusion", "a result that is a copy is read by that alone"),
    ("dead-code", "scan-fusion", "a dead user would end a region"),
    ("separate-results", "scan-fusion", "a result that is a copy is read by that alone"),
    ("vectorize-loops", "scan-fusion", "loops become scans"),
    ("vectorize-loops", "sum-states", "loops become scans"),
    ("sum-batches", "canonicalize-dot", "several summed dimensions become one"),
    (SIMPLIFY_FOLDED, "sum-batches", "views of views between a product and its sum are one"),
    ("sum-states", "canonicalize-dot", "a product in normal form has a column where there was a vector"),
    ("scan-fusion", "fusion", "coefficients belong to their recurrence"),
    ("image-fusion", "fusion", "elementwise work belongs to the convolution before it"),
    ("store-transposed", "fusion", "a region takes the weight as it is stored"),
    ("autocast", "fusion", "a region is computed in the dtypes that it has"),
    ("legalize-dtypes", "separate-results", "it decides which results have another dtype outside"),
    ("autocast", "scale-later", "a conversion may stand between a product and what is scaled"),
    ("masked-rows", "scale-later", "a quotient has not moved behind a product yet"),
    ("scale-later", "exact-quotients", "a quotient that scales a product later is none of its own"),
    ("widen-dtypes", "exact-quotients", "a conversion to a type of few bits rounds as well"),
    ("exact-quotients", "fusion", "the correction is elementwise work like any other"),
    ("fold-constants", "split-scatters", "initial values are numbers once they are folded"),
    ("split-scatters", "dead-code", "the whole scatter is read no more"),
    ("split-reductions", "dead-code", "the whole reduction is read no more"),
    ("fold-constants", "split-reductions", "initial values are numbers once they are folded"),
    ("split-reductions", "fusion", "its second half is small work like any other"),
    ("scale-later", "dead-code", "what was scaled before is read no more"),
    ("fusion", "merge-regions", "it looks at what regions read and make"),
    ("merge-regions", "chain-regions", "what a region makes in two dtypes is handed on in the one that is read"),
    ("dead-code", "fusion", "a dead user would keep a producer out of its region"),
)
"""(earlier, later, reason): what the order of STEPS rests on, checked when this module is imported."""

PASS_NAMES = tuple(step.name for step in STEPS)
"""Names of all passes, in the order of the pipeline."""

_broken = [fact for fact in ORDER if PASS_NAMES.index(fact[0]) >= PASS_NAMES.index(fact[1])]
assert not _broken and len(set(PASS_NAMES)) == len(PASS_NAMES), f"order of passes: {_broken}"


def passes(settings: Settings) -> tuple[Pass, ...]:
    """The passes that run with these settings, in order."""
    return tuple(step.make(settings) for step in STEPS if settings.optlevel >= step.level)


Observe = Callable[[str, Module, bool], bool]
"""observe(pass name, module, changed) -> whether to go on."""


def _go_on(name: str, module: Module, changed: bool) -> bool:
    return True


LAYERS_LEFT_OUT = "normalize-layouts"
"""Behind this pass modules are plain enough that equal layers are equal instructions."""


def run_pipeline(module: Module, settings: Settings, *, disabled: Sequence[str] = (), observe: Observe = _go_on,
                 watched: bool = True) -> None:
    """Run every pass that is not disabled, until `observe` says stop.

    watched: `observe` looks at modules, or somebody hears what passes count. Else passes see a few of many equal layers.
    """
    rows = [row for row in passes(settings) if row.name not in disabled]
    names = [row.name for row in rows]
    if watched or not {LAYERS_LEFT_OUT, "fold-layers", "unfold-layers"} <= set(names):
        _run(rows, module, observe)
        return
    first, last = names.index(LAYERS_LEFT_OUT) + 1, names.index("fold-layers")
    if not _run(rows[:first], module, observe):
        return
    left_out = leave_out(module, settings.weights)
    if left_out is not None and _run_short(left_out, settings, disabled, observe):
        vars(module).update(vars(left_out.module))
        for computation in module.computations:
            computation.parent = module
        _run(rows[last + 1:], module, observe)
    else:
        _run(rows[first:], module, observe)


def _run(rows: Sequence[Pass], module: Module, observe: Observe) -> bool:
    """Whether nobody said stop."""
    return all(observe(row.name, module, row.run(module)) for row in rows)


def _run_short(left_out: LeftOut, settings: Settings, disabled: Sequence[str], observe: Observe) -> bool:
    """Passes up to the folding of layers, on a module without most of them; whether these came back. Observers hear of it then.

    A warning is for each layer that it is about, so none may be given.
    """
    notes: list[Note] = []
    seen: list[tuple[str, bool]] = []
    rows = [row for row in passes(replace(settings, report=notes.append)) if row.name not in disabled]
    names = [row.name for row in rows]
    for row in rows[names.index(LAYERS_LEFT_OUT) + 1:names.index("fold-layers")]:
        seen.append((row.name, row.run(left_out.module)))
    if any(note.is_warning for note in notes) or not FoldLayers(left_out).run(left_out.module):
        return False
    for note in notes:
        settings.report(note)
    for name, changed in (*seen, ("fold-layers", True)):
        observe(name, left_out.module, changed)
    return True
