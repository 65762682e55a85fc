"""The list of commands; each file registers its own."""

from starpayne.cli import (
    attention,
    demo,
    distil,
    engines,
    evaluate,
    explore,
    export,
    finetune,
    fit,
    importing,
    info,
    mask,
    predict,
    sensitivity,
    sharing,
    study,
    synthesize,
    train,
)

COMMANDS = (
    synthesize.register, engines.register, importing.register, train.register, finetune.register, distil.register,
    evaluate.register, study.register, predict.register, fit.register, mask.register, sensitivity.register,
    attention.register, explore.register, info.register, export.register, sharing.register, demo.register,
)  # fmt: skip
