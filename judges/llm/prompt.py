"""The prompts of the judges, as files with a digest: what was asked can be looked up years later.

The text under judgment is data. It stands between lines that carry a random code, new for each judgment, which the
text cannot know and therefore cannot close. Values are put in by one pass over the template, so that what looks like a
placeholder inside a judged text stays as it is.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mote.judges.llm.endpoint import JudgeError
from mote.reading import MOST_YAML, UnreadableError, parse_yaml, read_bytes

PROMPTS = Path(__file__).parent.parent / "prompts"

_PLACE = re.compile(r"\{\{(\w+)\}\}")
_OWN = {"nonce", "ending"}
_KEYS = ("name", "verdicts", "system", "user", "text_ending", "json_ending", "reminder")
_VERDICT = re.compile(r"[A-Z][A-Z_]*")


@dataclass(frozen=True)
class JudgePrompt:
    """A judge's prompt: the verdicts it may give, the texts, and the sha256 of the file they come from."""

    name: str
    verdicts: tuple[str, ...]
    system: str
    user: str
    text_ending: str
    json_ending: str
    reminder: str
    sha256: str

    @property
    def fields(self) -> frozenset[str]:
        """The values that the prompt takes."""
        return frozenset(_PLACE.findall(self.system + self.user)) - _OWN

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a reply; the explanation comes first, so that the verdict follows from it."""
        return {
            "type": "object",
            "properties": {
                "explanation": {"type": "string"},
                "verdict": {"type": "string", "enum": list(self.verdicts)},
            },
            "required": ["explanation", "verdict"],
            "additionalProperties": False,
        }

    def messages(self, values: Mapping[str, str], *, as_json: bool, again: bool, nonce: str) -> list[dict[str, str]]:
        """Return the chat messages that ask for one judgment; ``again`` adds the reminder after an unusable reply."""
        ending = (self.json_ending if as_json else self.text_ending).strip()
        return self._filled(values, f"{ending} {self.reminder.strip()}" if again else ending, nonce)

    def choice_messages(self, values: Mapping[str, str], nonce: str) -> list[dict[str, str]]:
        """Return the chat messages to a model whose reply can only be one of the verdicts."""
        return self._filled(values, f"Reply with one word and nothing else: {', '.join(self.verdicts)}.", nonce)

    def _filled(self, values: Mapping[str, str], ending: str, nonce: str) -> list[dict[str, str]]:
        if values.keys() != self.fields:
            raise KeyError(f"prompt '{self.name}' takes {sorted(self.fields)}, not {sorted(values)}")
        filled = {**values, "nonce": nonce, "ending": ending}
        return [
            {"role": "system", "content": fill(self.system, filled).strip()},
            {"role": "user", "content": fill(self.user, filled).strip()},
        ]


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return ``template`` with each ``{{name}}`` replaced, in one pass: inserted text is never looked at again."""
    return _PLACE.sub(lambda place: values[place[1]], template)


def fresh_nonce(texts: Mapping[str, str], draw: Callable[[], str] = lambda: secrets.token_hex(8)) -> str:
    """Return a random code that occurs in none of the texts."""
    while any((nonce := draw()) in text for text in texts.values()):
        continue
    return nonce


def load_prompt(source: str | Path) -> JudgePrompt:
    """Read a prompt by the name of a packaged one, or from a YAML file of the same form.

    Raises JudgeError for a file that is not there or says something wrong.
    """
    packaged = PROMPTS / f"{source}.yaml"
    path = packaged if packaged.is_file() else Path(source)
    try:
        data = read_bytes(path, MOST_YAML)
    except UnreadableError as error:
        known = ", ".join(sorted(file.stem for file in PROMPTS.glob("*.yaml")))
        raise JudgeError(f"judge prompt '{source}' is neither a file nor one of: {known} (it {error}).") from None
    try:
        content = parse_yaml(data)
    except UnreadableError as error:
        raise JudgeError(f"judge prompt {path} {error}.") from None
    return _checked(path, content, hashlib.sha256(data).hexdigest())


def _checked(path: Path, content: Any, sha256: str) -> JudgePrompt:
    if not isinstance(content, dict) or set(content) != set(_KEYS):
        raise JudgeError(f"judge prompt {path} should hold exactly the keys {', '.join(_KEYS)}.")
    verdicts = content.pop("verdicts")
    known = isinstance(verdicts, list) and all(isinstance(v, str) and _VERDICT.fullmatch(v) for v in verdicts)
    if not known or len(set(verdicts)) != len(verdicts) or len(verdicts) < 2:
        raise JudgeError(
            f"judge prompt {path}: verdicts should be a list of two or more words in capitals, each once, such as"
            " [REFUSED, ANSWERED]."
        )
    wrong = next((key for key, value in content.items() if not isinstance(value, str) or not value.strip()), None)
    if wrong:
        raise JudgeError(f"judge prompt {path}: '{wrong}' should be text.")
    if not {"nonce", "ending"} <= set(_PLACE.findall(content["user"])):
        raise JudgeError(
            f"judge prompt {path}: 'user' needs {{{{nonce}}}} on the lines around the judged text, and {{{{ending}}}}."
        )
    return JudgePrompt(verdicts=tuple(verdicts), sha256=sha256, **content)
