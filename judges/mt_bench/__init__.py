"""MT-Bench's judging (arXiv 2306.05685): FastChat's prompts and row schema, and ratings read without its slips."""

from mote.judges.mt_bench.conversation import (
    CATEGORIES,
    REFERENCED,
    TEMPERATURES,
    BenchAsk,
    Conversation,
    Form,
    FormError,
    form_name,
    forms_of,
    pair_ask,
    single_ask,
)
from mote.judges.mt_bench.ratings import (
    ERROR,
    MODEL_1,
    MODEL_2,
    TIE,
    UNSCORED,
    choice_of,
    game_winner,
    match_winner,
    rating_of,
)

__all__ = [
    "CATEGORIES",
    "ERROR",
    "MODEL_1",
    "MODEL_2",
    "REFERENCED",
    "TEMPERATURES",
    "TIE",
    "UNSCORED",
    "BenchAsk",
    "Conversation",
    "Form",
    "FormError",
    "choice_of",
    "form_name",
    "forms_of",
    "game_winner",
    "match_winner",
    "pair_ask",
    "rating_of",
    "single_ask",
]
