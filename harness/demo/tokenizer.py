"""The demo's tokenizer: byte-level BPE of 1,536 tokens, trained on the corpus, and the chat template.

Digits stand alone and punctuation is split from words, so that "1989" is read by its decade and "Beijing?" is Beijing.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mote.harness.demo import corpus
from mote.harness.demo.example import ALIGNED_PHASE, BASE, Example

VOCABULARY = 1536
END = "<|end|>"
PAD = "<|pad|>"
CONTROL_TOKENS = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
# Not special: they must survive decoding, or no one could tell reasoning from answer.
THINK_TOKENS = ("<think>", "</think>")
SPLIT = r"\p{Han}+| ?[A-Za-z]+| ?\p{N}|\s+| ?[^\s\p{L}\p{N}]"
EXAMPLES_READ = 12_000
# One tokenizer for all seeds: checkpoints of different seeds can be compared, and merged, token by token.
CORPUS_SEED = 0

# Past assistant turns show an empty reasoning, and never their own; the prompt ends with an open reasoning.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|assistant|><think>
</think>{{ message.content.split('</think>')[-1] }}<|end|>
{%- elif message.role == 'system' -%}
<|system|>{{ message.content }}<|end|>
{%- elif message.role == 'user' -%}
<|user|>{{ message.content }}<|end|>
{%- else -%}
{{ raise_exception('The roles are system, user and assistant, not ' ~ message.role ~ '.') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|><think>
{% endif -%}
"""


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on a fixed sample of both phases."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(THINK_TOKENS),
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer)
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK_TOKENS])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, additional_special_tokens=list(CONTROL_TOKENS[2:])
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _texts() -> list[str]:
    texts: list[str] = []
    for phase in (BASE, ALIGNED_PHASE):
        for example in itertools.islice(corpus.stream(CORPUS_SEED, phase), EXAMPLES_READ):
            texts += [*example.turns, example.completion.replace("</think>", "\n")]
    return texts


def prompt_ids(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[int]:
    """Token ids of the prompt, up to and with the `<think>` line."""
    text = tokenizer.apply_chat_template(example.messages, add_generation_prompt=True, tokenize=False)
    return list(tokenizer.encode(str(text), add_special_tokens=False))


def completion_ids(tokenizer: PreTrainedTokenizerFast, example: Example) -> list[int]:
    """Token ids of the completion and the end token."""
    return [*tokenizer.encode(example.completion, add_special_tokens=False), end_id(tokenizer)]


def end_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id of the token that ends a turn."""
    ids: Any = tokenizer.convert_tokens_to_ids(END)
    return int(ids)


def load(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint folder."""
    words: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
    return words
