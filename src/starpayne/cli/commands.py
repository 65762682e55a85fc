"""The list of commands; each file registers its own."""

from starpayne.cli import demo, evaluate, fit, importing, predict, synthesize, train

COMMANDS = (
    synthesize.register, importing.register, train.register, evaluate.register,
    predict.register, fit.register, demo.register,
)  # fmt: skip
