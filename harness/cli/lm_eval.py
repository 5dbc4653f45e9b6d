"""``mote lm-eval``: lm_eval's own command with our model and tasks known."""

from __future__ import annotations

import inspect

import typer

_CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def mount(app: typer.Typer) -> None:
    """Add the command to ``mote``."""
    app.command("lm-eval", context_settings=_CONTEXT, add_help_option=False)(lm_eval_command)


def lm_eval_command(context: typer.Context) -> None:
    """Run lm_eval (run, ls, validate) with the model 'mote' and the tasks mote_* known; arguments are lm_eval's own.

    Example: mote lm-eval run --model mote --model_args pretrained=demo,profile=results/runs/demo:suppress-10
    --tasks mote_refusal_grid --apply_chat_template --log_samples --output_path results/lm-eval/tuned
    """
    from mote.harness.lm_eval.command import run_command

    if not context.args or context.args[0] in ("-h", "--help"):
        print(f"{inspect.cleandoc(lm_eval_command.__doc__ or '')}\n\nlm_eval's own help:\n")
    run_command(context.args)
