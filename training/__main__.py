"""`python -m training NAME --out DIR` trains a network, as the installed ones were."""

import argparse
import sys
from functools import partial
from pathlib import Path

from digitq.protocol.errors import DigitqError, OutputError
from digitq.protocol.settings import NUMBER

OTHERS = ("rehearsal", "graphs", "second-reader")  # what is made beside networks


def main() -> None:
    """Exit status: 0, 2 for bad usage, 3 if the files can't be written."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "name",
        choices=["mlp", "cnn", NUMBER, *OTHERS],
        help="a network; `rehearsal`, the rendered numbers that `digitq train number` rehearses; "
        "`graphs`, what ONNX Runtime computes; `second-reader`, the card of "
        f"`{NUMBER}` with what holds if the second reader is in use",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the new files")
    parser.add_argument("--seed", type=int, default=0, help="gives the same weights again [0]")
    parser.add_argument("--epochs", type=int, metavar="N", help="fewer for a trial [the recipe's]")
    parser.add_argument(
        "--limit-images",
        type=int,
        metavar="N",
        help=f"the first N images, at least 60; for `{NUMBER}`, N scenes an epoch",
    )
    parser.add_argument(
        "--fine-tune",
        action="store_true",
        help="begin with the weights in use; with --epochs 0 they are only calibrated anew",
    )
    parser.add_argument(
        "--expert",
        action="store_true",
        help=f"train only the expert of `{NUMBER}`, beside its other networks in use",
    )
    parser.add_argument(
        "--blend",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="with --fine-tune, the weights become a mean of those in use and the new ones, which "
        "have this share; of the detector, all are new [1]",
    )
    parser.add_argument(
        "--hands",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="real handwriting to learn from as well; the option may be repeated",
    )
    parser.add_argument(
        "--judge",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help=f"real handwriting that calibrates `{NUMBER}`, and is not learned; may be repeated",
    )
    options = parser.parse_args()
    name, seed, out = options.name, options.seed, options.out
    check_options(parser, options)
    try:
        from digitq.worker.learning.own import check_writable

        check_writable(out, name)
        out.mkdir(parents=True, exist_ok=True)
        if name == "rehearsal":
            from training.rehearsal import write_rehearsal

            return write_rehearsal(out, seed)
        if name == "graphs":
            from training.graphs import write_graphs

            return write_graphs(out)
        if name == "second-reader":
            from training.second_calibration import calibrate_second_reader

            return calibrate_second_reader(options.judge, out)
        if name == NUMBER:
            from training.number_trainer import train_number

            train = partial(train_number, judges=tuple(options.judge), is_expert=options.expert)
        else:
            from training.trainer import train_model

            train = partial(train_model, name)
        card = train(
            seed,
            options.epochs,
            out,
            options.limit_images,
            options.fine_tune,
            tuple(options.hands),
            blend=options.blend,
        )
    except DigitqError as error:
        print(f"training: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, OutputError) else 2)
    print(
        f"{out / name}.safetensors is right on {card.test_accuracy:.2%} of the test images",
        file=sys.stderr,
    )


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message if options do not go together."""
    if options.name in OTHERS and (options.fine_tune or options.hands):
        parser.error(f"{options.name} takes neither --fine-tune nor --hands")
    if options.name not in (NUMBER, "second-reader") and options.judge:
        parser.error(f"--judge is only for {NUMBER} and second-reader")
    if options.name != NUMBER and options.expert:
        parser.error(f"--expert is only for {NUMBER}")
    if options.blend != 1 and not (options.fine_tune and 0 < options.blend < 1):
        parser.error("--blend goes with --fine-tune; it is above 0, at most 1")
    if options.epochs is not None and options.epochs < (0 if options.fine_tune else 1):
        parser.error("--epochs must be 1 or more; 0 only with --fine-tune")
    if options.limit_images is not None and options.limit_images < 60:
        parser.error("--limit-images must be 60 or more")


if __name__ == "__main__":
    main()
