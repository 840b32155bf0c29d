"""The one list of what a run can hold: the fields that writers store and the signals that readers derive.

A *field* is stored: a sum, a count, a maximum, so that ranks, micro-batches and intervals merge by arithmetic.
A *signal* is what people ask for: a mean loss, a norm, a share. It names the fields it reads and the formula.

Fields and signals are called `family/name`. Fields that are logged together at one cadence form a *frame*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainvitals import formulas as f

OWN = "custom/"
"""What precedes a user's own name where one of ours, or of the store's, is the same."""

STATED = "stated/"
"""What precedes a signal that a foreign log states as such, where ours would store the sums that make it up."""

UNKNOWN = "unknown"
"""Key in an event's data that marks it as saying what the record lacks."""

Merge = Literal["sum", "same", "max", "min"]
"""How one step's values of several ranks become one: added; identical everywhere (the first is taken); extreme."""


@dataclass(frozen=True, slots=True)
class Field:
    """One stored column (or one column per label of all axes but the last)."""

    name: str
    frame: str
    unit: str
    merge: Merge
    meaning: str
    axes: tuple[str, ...] = ()
    """Names of the axes of one row's value; () for a scalar. Labels of each axis travel with the data."""
    dtype: str = "float64"
    """Stored type of vector elements. Scalars are always float64, which holds counts exactly up to 2**53."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One readable series, computed from merged fields of one frame."""

    name: str
    unit: str
    meaning: str
    reads: tuple[str, ...]
    formula: Callable[..., f.Masked]
    """Takes one array [steps, *axes] per name in `reads`, then the run card if `needs_card`."""
    axes: tuple[str, ...] = ()
    needs_card: bool = False
    running: bool = False
    """The value of a step depends on earlier steps, so the formula needs them all."""
    windows: int | None = None
    """Sum neighbouring rows until there are at most so many: for fields too wide to hold every row in memory."""
    by_rank: bool = False
    """Keep ranks apart as the last axis, labelled by rank, instead of merging them."""
    mean: bool = False
    """A mean or share over what the ranks saw: without the rows of some it is that of the others, and is marked."""
    stated: bool = False
    """The values are a log's own, and not computed from what was counted."""

    @property
    def frame(self) -> str:
        return FIELDS[self.reads[0]].frame


SPARSE = frozenset({"skipped", "unused"})
"""Frames with rows only where something happened: a rank without a row has nothing to add."""

MANY_ROWS = frozenset({"eval", "eval_sets"})
"""Frames in which one rank may have several rows for one step, of one evaluation pass each: they are added. In every
other frame a rank's last row for a step is the one that counts."""


def _fields(frame: str, *rows: tuple[Any, ...]) -> list[Field]:
    return [Field(name, frame, unit, merge, meaning, *rest) for name, unit, merge, meaning, *rest in rows]


FIELDS: Mapping[str, Field] = {
    field.name: field
    for field in [
        *_fields(
            "loss",
            ("loss/sum", "nats", "sum", "cross-entropy summed over target tokens"),
            ("loss/tokens", "tokens", "sum", "target tokens that entered the loss"),
            ("loss/nonfinite_tokens", "tokens", "sum", "target tokens whose cross-entropy was NaN or infinite"),
            ("loss/domain_sum", "nats", "sum", "cross-entropy summed per data domain", ("domain",)),
            ("loss/domain_tokens", "tokens", "sum", "target tokens per data domain", ("domain",), "int64"),
            ("loss/returned_sum", "nats", "sum", "losses returned by the model's forward, auxiliary terms included"),
            ("loss/aux_sum", "nats", "sum", "router load-balancing losses returned by the model"),
            ("loss/z_sum", "nats", "sum", "router z losses returned by the model"),
            ("loss/forwards", "forwards", "sum", "training forwards (micro-batches) in this step"),
        ),
        *_fields(
            "eval",
            ("loss/val_sum", "nats", "sum", "validation cross-entropy summed over target tokens"),
            ("loss/val_tokens", "tokens", "sum", "validation target tokens"),
            ("loss/val_domain_sum", "nats", "sum", "validation cross-entropy summed per domain", ("domain",)),
            ("loss/val_domain_tokens", "tokens", "sum", "validation target tokens per domain", ("domain",), "int64"),
        ),
        *_fields(
            "eval_sets",
            ("loss/val_set_sum", "nats", "sum", "cross-entropy summed over target tokens of each evaluation set",
             ("eval_set",)),
            ("loss/val_set_tokens", "tokens", "sum", "target tokens of each evaluation set", ("eval_set",), "int64"),
            ("loss/val_set_domain_sum", "nats", "sum", "the cross-entropy per domain", ("eval_set", "domain")),
            ("loss/val_set_domain_tokens", "tokens", "sum", "the target tokens per domain", ("eval_set", "domain"),
             "int64"),
        ),
        *_fields(
            "grad",
            ("grad/sumsq", "1", "sum", "sum of squared gradient elements before clipping, this rank's share"),
            ("grad/sumsq_by_layer", "1", "sum", "the same per layer", ("layer",)),
            ("grad/clipped_sumsq", "1", "sum", "sum of squared gradient elements that the optimizer was given"),
            ("grad/nonfinite", "tensors", "sum", "parameter tensors whose gradient norm was NaN or infinite"),
        ),
        *_fields(
            "skipped",
            ("skipped/gradients", "gradients", "max", "gradients for this step that were thrown away, on any rank"),
            ("skipped/nonfinite", "tensors", "sum", "parameter tensors in them whose norm was NaN or infinite"),
        ),
        *_fields(
            "scaler",
            ("grad/loss_scale", "1", "same", "factor that a gradient scaler put on the loss of this step"),
        ),
        *_fields(
            "unused",
            ("unused/forwards", "forwards", "sum", "forwards in training mode whose gradient became part of no step"),
            ("unused/tokens", "tokens", "sum", "target tokens of theirs"),
            ("unused/nonfinite_tokens", "tokens", "sum", "those of them whose cross-entropy was NaN or infinite"),
        ),
        *_fields(
            "lr",
            ("lr/used", "1", "same", "learning rate the optimizer used for this step, per group", ("group",)),
            ("lr/planned", "1", "same", "learning rate that the plan holds for this step, per group", ("group",)),
            ("optimizer/steps", "steps", "same", "updates that the optimizer's own state counts before this one, per "
             "group", ("group",)),
        ),
        *_fields(
            "update",
            ("weight/sumsq_by_layer", "1", "sum", "sum of squared weights before the step", ("layer",)),
            ("update/sumsq_by_layer", "1", "sum", "sum of squared weight changes of the step", ("layer",)),
        ),
        *_fields(
            "replicas",
            ("weight/checksum", "1", "max", "sum of the bits of all replicated weights as integers, modulo 2**32"),
            ("weight/checksum_min", "1", "min", "the same per layer, smallest over ranks", ("layer",)),
            ("weight/checksum_max", "1", "max", "the same per layer, largest over ranks", ("layer",)),
        ),
        *_fields(
            "router",
            ("router/tokens", "tokens", "sum", "tokens that the router sent to each expert since the last row",
             ("router_layer", "expert"), "int64"),
        ),
        *_fields(
            "router_domain",
            ("router/domain_tokens", "tokens", "sum", "tokens per domain sent to each expert since the last row",
             ("domain", "router_layer", "expert"), "int64"),
        ),
        *_fields(
            "data",
            ("data/domain_tokens", "tokens", "sum", "input tokens per data domain, padding excluded",
             ("domain",), "int64"),
            ("data/padding_tokens", "tokens", "sum", "padding positions in the batch"),
            ("data/sequences", "sequences", "sum", "rows of the batch"),
            ("data/documents", "documents", "sum", "documents in the batch: position restarts, else rows"),
            ("data/batch_lanes", "1", "sum", "sum over rows of a hash of their token ids, in two lanes modulo 2**32",
             ("lane",)),
        ),
        *_fields(
            "tokens",
            ("tokens/counts", "tokens", "sum", "how often each token id was seen since the last row",
             ("domain", "token"), "int64"),
            ("tokens/seen", "tokens", "sum", "their number", ("domain",), "int64"),
            ("tokens/bytes", "bytes", "sum", "UTF-8 bytes of those tokens", ("domain",)),
            ("tokens/script_bytes", "bytes", "sum", "UTF-8 bytes of those tokens per Unicode script",
             ("domain", "script")),
        ),
        *_fields(
            "coverage",
            ("coverage/parameters", "parameters", "sum", "trainable parameters, times steps since the last row"),
            ("coverage/parameters_held", "parameters", "sum", "those of them that an optimizer given to attach holds"),
            ("coverage/gradients", "parameters", "sum", "trainable parameters of the optimizers that made an update, "
             "times steps since the last row"),
            ("coverage/gradients_seen", "parameters", "sum", "those of them that had a gradient then"),
            ("coverage/forwards", "forwards", "sum", "training forwards since the last row"),
            ("coverage/losses_seen", "forwards", "sum", "those of them whose loss per token was seen"),
            ("coverage/routers", "routers", "sum", "routers in the training forwards since the last row"),
            ("coverage/routers_read", "routers", "sum", "those of them whose choice was read"),
        ),
        *_fields(
            "throughput",
            ("throughput/step_time", "s", "max", "wall time from the end of the last step to the end of this one"),
            ("throughput/data_wait", "s", "max", "wall time from the end of the last step to the first forward"),
            ("throughput/tokens", "tokens", "sum", "input tokens of the step, padding excluded"),
        ),
        *_fields(
            "system",
            ("system/rss_bytes", "bytes", "max", "resident memory of the training process"),
            ("system/device_peak_bytes", "bytes", "max", "peak device memory allocated by torch"),
            ("system/device_reserved_bytes", "bytes", "max", "device memory reserved by torch"),
            ("system/device_utilization", "1", "max", "share of time in which the device ran a kernel"),
        ),
    ]
}

SIGNALS: Mapping[str, Signal] = {
    signal.name: signal
    for signal in [
        Signal("loss/train", "nats/token", "mean cross-entropy per target token",
               ("loss/sum", "loss/tokens"), f.ratio, mean=True),
        Signal("loss/domain", "nats/token", "mean cross-entropy per target token of each data domain",
               ("loss/domain_sum", "loss/domain_tokens"), f.ratio, ("domain",), mean=True),
        Signal("loss/returned", "nats", "loss returned by the model, auxiliary terms included, mean over forwards",
               ("loss/returned_sum", "loss/forwards"), f.ratio, mean=True),
        Signal("loss/aux", "nats", "router load-balancing loss, mean over forwards",
               ("loss/aux_sum", "loss/forwards"), f.ratio, mean=True),
        Signal("loss/z", "nats", "router z loss, mean over forwards",
               ("loss/z_sum", "loss/forwards"), f.ratio, mean=True),
        Signal("loss/val", "nats/token", "mean cross-entropy per target token of all evaluated without a name",
               ("loss/val_sum", "loss/val_tokens"), f.ratio, mean=True),
        Signal("loss/val_domain", "nats/token", "mean validation cross-entropy of each data domain",
               ("loss/val_domain_sum", "loss/val_domain_tokens"), f.ratio, ("domain",), mean=True),
        Signal("loss/val_set", "nats/token", "mean cross-entropy per target token of each evaluation set by name",
               ("loss/val_set_sum", "loss/val_set_tokens"), f.ratio, ("eval_set",), mean=True),
        Signal("loss/val_set_domain", "nats/token", "the same of each data domain",
               ("loss/val_set_domain_sum", "loss/val_set_domain_tokens"), f.ratio, ("eval_set", "domain"), mean=True),
        Signal("grad/norm", "1", "global L2 norm of the gradient before clipping", ("grad/sumsq",), f.root),
        Signal("grad/norm_clipped", "1", "global L2 norm of the gradient after clipping",
               ("grad/clipped_sumsq",), f.root),
        Signal("grad/norm_by_layer", "1", "L2 norm of each layer's gradient before clipping",
               ("grad/sumsq_by_layer",), f.root, ("layer",)),
        Signal("grad/clipped", "1", "1 where clipping shrank the gradient, else 0",
               ("grad/clipped_sumsq", "grad/sumsq"), f.smaller),
        Signal("loss/nonfinite_by_rank", "tokens", "target tokens of each rank whose cross-entropy was NaN or infinite",
               ("loss/nonfinite_tokens",), f.plain, ("rank",), by_rank=True),
        Signal("grad/nonfinite_by_rank", "tensors", "parameter tensors of each rank whose gradient norm was NaN or "
               "infinite; where ranks average gradients (DistributedDataParallel), that of all of them",
               ("grad/nonfinite",), f.plain, ("rank",), by_rank=True),
        Signal("skipped/gradients_by_rank", "gradients", "gradients for this step that each rank threw away",
               ("skipped/gradients",), f.plain, ("rank",), by_rank=True),
        Signal("unused/nonfinite_by_rank", "tokens", "tokens without a finite cross-entropy in forwards of each rank "
               "that became part of no step", ("unused/nonfinite_tokens",), f.plain, ("rank",), by_rank=True),
        Signal("weight/norm_by_layer", "1", "L2 norm of each layer's weights",
               ("weight/sumsq_by_layer",), f.root, ("layer",)),
        Signal("update/ratio_by_layer", "1", "L2 norm of the step's weight change over that of the weights",
               ("update/sumsq_by_layer", "weight/sumsq_by_layer"), f.root_ratio, ("layer",)),
        Signal("update/ratio", "1", "the same over all weights",
               ("update/sumsq_by_layer", "weight/sumsq_by_layer"), f.root_ratio_total),
        Signal("weight/replicas_differ", "1", "1 where ranks that should hold the same weights "
               "(DistributedDataParallel) hold others, bit by bit, else 0; no row where no ranks should",
               ("weight/checksum_min", "weight/checksum_max"), f.unequal, ("layer",)),
        Signal("weight/checksum_by_rank", "1", "sum of the bits of each rank's replicated weights, modulo 2**32: equal "
               "weights have equal ones", ("weight/checksum",), f.plain, ("rank",), by_rank=True),
        Signal("router/load", "1", "share of the layer's tokens sent to each expert",
               ("router/tokens",), f.share, ("router_layer", "expert"), mean=True),
        Signal("router/entropy", "1", "entropy of the layer's expert load over ln(experts): 1 is balanced",
               ("router/tokens",), f.load_entropy, ("router_layer",)),
        Signal("router/max_vio", "1", "(largest - mean) / mean expert load of the layer: 0 is balanced",
               ("router/tokens",), f.max_violation, ("router_layer",)),
        Signal("router/cv", "1", "standard deviation over mean of the layer's expert loads",
               ("router/tokens",), f.load_cv, ("router_layer",)),
        Signal("router/dead", "experts", "experts of the layer that got no token since the last row",
               ("router/tokens",), f.dead_experts, ("router_layer",)),
        Signal("router/domain_load", "1", "share of each domain's tokens that a layer sends to each expert",
               ("router/domain_tokens",), f.share, ("domain", "router_layer", "expert"), mean=True),
        Signal("data/domain_share", "1", "share of input tokens per data domain",
               ("data/domain_tokens",), f.share, ("domain",), mean=True),
        Signal("data/padding_share", "1", "share of batch positions that are padding",
               ("data/padding_tokens", "data/domain_tokens"), f.padding_share, mean=True),
        Signal("data/documents_per_sequence", "documents", "packed documents per batch row",
               ("data/documents", "data/sequences"), f.ratio, mean=True),
        Signal("data/batch_hash", "1", "fingerprint of the token ids, whatever the order of the rows, in two lanes "
               "modulo 2**32; `trainvitals.fingerprint.batch_hashes` makes one number of them",
               ("data/batch_lanes",), f.modulo_lane, ("lane",)),
        Signal("data/tokens_seen", "tokens", "input tokens since the start of the run, padding excluded",
               ("data/domain_tokens",), f.cumulative_total, running=True),
        Signal("data/epochs", "epochs", "passes over each domain's unique tokens, as given in the run card",
               ("data/domain_tokens",), f.epochs, ("domain",), needs_card=True, running=True),
        Signal("tokens/js", "1", "Jensen-Shannon distance (base 2) of the window's token ids to the first windows', "
               "sampling noise subtracted", ("tokens/counts",), f.token_drift, ("domain",), running=True, windows=256,
               mean=True),
        Signal("tokens/bytes_per_token", "bytes/token", "UTF-8 bytes per token of each domain",
               ("tokens/bytes", "tokens/seen"), f.ratio, ("domain",), mean=True),
        Signal("tokens/script_share", "1", "share of UTF-8 bytes per Unicode script",
               ("tokens/script_bytes",), f.share, ("domain", "script"), mean=True),
        Signal("coverage/parameter_share", "1", "share of trainable parameters that an optimizer given to attach holds",
               ("coverage/parameters_held", "coverage/parameters"), f.ratio, mean=True),
        Signal("coverage/gradient_share", "1", "share of these parameters that had a gradient at the update",
               ("coverage/gradients_seen", "coverage/gradients"), f.ratio, mean=True),
        Signal("coverage/loss_share", "1", "share of training forwards whose loss per token was seen",
               ("coverage/losses_seen", "coverage/forwards"), f.ratio, mean=True),
        Signal("coverage/router_share", "1", "share of routers whose choice was read",
               ("coverage/routers_read", "coverage/routers"), f.ratio, mean=True),
        Signal("coverage/domain_share", "1", "share of input tokens with a known domain, where domains are given",
               ("data/domain_tokens",), f.known_share, mean=True),
        Signal("throughput/tokens_per_s", "tokens/s", "input tokens per second, all ranks, slowest rank's time",
               ("throughput/tokens", "throughput/step_time"), f.ratio),
        Signal("throughput/data_wait_share", "1", "share of the step spent waiting for the batch, worst rank",
               ("throughput/data_wait", "throughput/step_time"), f.ratio),
        Signal("throughput/mfu", "1", "model FLOP/s over the hardware's peak, in the run card's convention",
               ("throughput/tokens", "throughput/step_time"), f.mfu, needs_card=True),
        Signal("throughput/step_time_by_rank", "s", "step time of each rank",
               ("throughput/step_time",), f.plain, ("rank",), by_rank=True),
        Signal("throughput/data_wait_by_rank", "s", "data wait of each rank",
               ("throughput/data_wait",), f.plain, ("rank",), by_rank=True),
    ]
}


def signal_of(field: Field) -> Signal:
    """The signal that shows a stored field as it is (a user's own metric, or a raw sum)."""
    return Signal(field.name, field.unit, field.meaning, (field.name,), f.plain, field.axes)


def stated_field(name: str) -> Field:
    """The field that holds a signal, or a field that ranks merge by arithmetic, as a log states it.

    What is the same on all ranks (a learning rate) is stored as it always is.
    """
    of = FIELDS.get(name)
    if of is not None and of.merge == "same":
        return of
    about = of or SIGNALS[name]
    return Field(STATED + name, f"stated_{about.frame}", about.unit, "same", about.meaning, about.axes)


def stated_signal(field: Field) -> Signal:
    """The signal that shows what a log states, under the signal's own name."""
    return Signal(field.name.removeprefix(STATED), field.unit, f"{field.meaning}, as the log states it", (field.name,),
                  f.plain, field.axes, stated=True)


def custom_field(name: str) -> Field:
    """The field of a number that a user logs under a name of their own."""
    return Field(name, "custom", "1", "same", "logged by the training script")


def own_name(name: str, taken: Collection[str] = ()) -> str:
    """The name under which a number of the user's own is stored: theirs, or `custom/<name>` where it is not free.

    Not free are the fields and signals of the catalogue, `step` and `time`, the columns in `taken`, and names that
    begin with `custom/` or `stated/` themselves; so two names of a user never become one.
    """
    free = name not in FIELDS and name not in SIGNALS and name not in ("step", "time") and name not in taken
    return name if free and not name.startswith((OWN, STATED)) else OWN + name
