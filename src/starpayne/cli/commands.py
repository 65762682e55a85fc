"""The list of commands; each file registers its own."""

from starpayne.cli import demo, evaluate, fit, importing, predict, study, synthesize, train

COMMANDS = (
    synthesize.register, importing.register, train.register, evaluate.register, study.register,
    predict.register, fit.register, demo.register,
)  # fmt: skip
