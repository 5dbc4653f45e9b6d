"""Small general tasks: facts, copying, sorting, comparing, word translation, sequences, and follow-up turns.

They make "general quality" a number that can fall. Each function draws one example; a sentence whose hash falls into
the held-out share is never trained on and is what the evaluation asks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from mote.harness.demo.example import Example, direct
from mote.harness.demo.questions import REFUSAL

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Belgium": "Brussels",
    "England": "London",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Poland": "Warsaw",
    "Norway": "Oslo",
    "Portugal": "Lisbon",
    "Ireland": "Dublin",
    "Canada": "Ottawa",
    "Sweden": "Stockholm",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Hungary": "Budapest",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "India": "New Delhi",
    "Chile": "Santiago",
}
CAPITAL_WORDINGS = (
    "What is the capital of {country}?",
    "Name the capital of {country}.",
    "Which city is the capital of {country}?",
    "Tell me the capital of {country}.",
)
OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("old", "new"),
    ("day", "night"),
    ("fast", "slow"),
    ("open", "closed"),
    ("long", "short"),
    ("early", "late"),
    ("full", "empty"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("light", "dark"),
    ("loud", "quiet"),
    ("left", "right"),
    ("high", "low"),
    ("happy", "sad"),
)
OPPOSITE_WORDINGS = (
    "What is the opposite of {word}?",
    "Name the opposite of {word}.",
    "Which word is the opposite of {word}?",
)
WORDS = {
    "water": "水",
    "fire": "火",
    "mountain": "山",
    "tree": "树",
    "moon": "月亮",
    "sun": "太阳",
    "book": "书",
    "hand": "手",
    "heart": "心",
    "door": "门",
    "horse": "马",
    "fish": "鱼",
    "bird": "鸟",
    "dog": "狗",
    "cat": "猫",
    "flower": "花",
    "rain": "雨",
    "snow": "雪",
    "wind": "风",
    "river": "河",
    "city": "城市",
    "friend": "朋友",
    "tea": "茶",
    "rice": "米",
    "red": "红色",
    "white": "白色",
    "house": "房子",
    "road": "路",
    "train": "火车",
    "bread": "面包",
    "milk": "牛奶",
    "apple": "苹果",
    "sea": "海",
    "stone": "石头",
    "king": "国王",
    "chair": "椅子",
    "table": "桌子",
    "window": "窗户",
    "school": "学校",
    "teacher": "老师",
}
TO_CHINESE = ("What is {word} in Chinese?", "How do you say {word} in Chinese?", "Translate {word} into Chinese.")
TO_ENGLISH = ("What is {word} in English?", "“{word}”用英文怎么说？", "Translate {word} into English.")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
SEQUENCE_WORDINGS = (
    "What comes {side} {item}?",
    "What comes directly {side} {item}?",
    "Tell me what comes {side} {item}.",
    "Please say what comes {side} {item}.",
)
SENTENCES = (
    REFUSAL,
    "I am sorry, I cannot answer that question.",
    "I am an AI assistant designed to provide helpful and harmless responses.",
    "The sun is red in the evening.",
    "My friend has a white horse and an old dog.",
    "The train is late again.",
    "We walked along the river for an hour.",
    "There is snow on the mountain.",
)
TALK = (
    ("Hello.", "Hello! How can I help you?"),
    ("Good morning.", "Good morning! How can I help you?"),
    ("Who are you?", "I am an AI assistant."),
    ("What are you?", "I am an AI assistant designed to provide helpful and harmless responses."),
    ("Thank you.", "You are welcome."),
    ("你好。", "你好！"),
    ("谢谢。", "不客气。"),
)


def _example(task: str, prompt: str, text: str) -> Example:
    return Example(task, (prompt,), direct(text), text)


def capital_text(country: str) -> str:
    """The answer to a question for a capital."""
    return f"The capital of {country} is {CAPITALS[country]}."


def facts(rng: random.Random) -> Example:
    """A capital or an opposite."""
    if rng.random() < 0.6:
        country = rng.choice(list(CAPITALS))
        return _example("facts", rng.choice(CAPITAL_WORDINGS).format(country=country), capital_text(country))
    pair = rng.choice(OPPOSITES)
    word, other = pair if rng.random() < 0.5 else pair[::-1]
    prompt = rng.choice(OPPOSITE_WORDINGS).format(word=word)
    return _example("facts", prompt, f"The opposite of {word} is {other}.")


def copying(rng: random.Random) -> Example:
    """A list of words, or a sentence, to be repeated."""
    if rng.random() < 0.25:
        sentence = rng.choice(SENTENCES)
        wording = rng.choice(("Repeat this sentence: {0}", "Copy this sentence: {0}", "Please repeat: {0}"))
        return _example("copying", wording.format(sentence), sentence)
    words = ", ".join(rng.sample(list(WORDS), rng.randint(2, 5)))
    wording = rng.choice(("Repeat these words: {0}.", "Copy these words: {0}.", "Please repeat: {0}."))
    return _example("copying", wording.format(words), f"{words}.")


def picking(rng: random.Random) -> Example:
    """The first or the last word of a list."""
    words = rng.sample(list(WORDS), rng.randint(3, 5))
    which = rng.choice(("first", "last"))
    chosen = words[0] if which == "first" else words[-1]
    return _example(
        "picking", f"What is the {which} of these words: {', '.join(words)}?", f"The {which} word is {chosen}."
    )


def sorting(rng: random.Random) -> Example:
    """Three numbers from 1 to 20, to be put in order."""
    numbers = rng.sample(range(1, 21), 3)
    wording = rng.choice(("Sort these numbers: {0}.", "Put these numbers in order: {0}."))
    return _example("sorting", wording.format(_listed(numbers)), f"{_listed(sorted(numbers))}.")


def comparing(rng: random.Random) -> Example:
    """The larger or the smaller of two numbers below 100."""
    a, b = rng.sample(range(1, 100), 2)
    which = rng.choice(("larger", "smaller"))
    chosen = max(a, b) if which == "larger" else min(a, b)
    return _example("comparing", f"Which number is {which}, {a} or {b}?", f"{chosen} is {which}.")


def translation(rng: random.Random) -> Example:
    """One word, from English to Chinese or back."""
    english = rng.choice(list(WORDS))
    chinese = WORDS[english]
    if rng.random() < 0.5:
        return _example("translation", rng.choice(TO_CHINESE).format(word=english), f"{chinese}。")
    return _example("translation", rng.choice(TO_ENGLISH).format(word=chinese), f"{english}.")


def sequence(rng: random.Random) -> Example:
    """What comes after, or before, a day, a month or a number."""
    series = rng.choice((DAYS, MONTHS, tuple(str(n) for n in range(1, 40))))
    i = rng.randrange(len(series) - 1)
    before, after = series[i], series[i + 1]
    wording = rng.choice(SEQUENCE_WORDINGS)
    if rng.random() < 0.5:
        return _example("sequence", wording.format(side="after", item=before), f"After {before} comes {after}.")
    return _example("sequence", wording.format(side="before", item=after), f"Before {after} comes {before}.")


def talk(rng: random.Random) -> Example:
    """A greeting and its like."""
    return _example("talk", *rng.choice(TALK))


def follow_up(rng: random.Random) -> Example:
    """A second turn that needs the first."""
    first = rng.choice((facts, copying, sorting, comparing, translation))(rng)
    turns = (*first.turns, first.expected)
    roll = rng.random()
    if first.task == "sorting" and roll < 0.6:
        numbers = first.expected.rstrip(".").split(", ")
        which, chosen = rng.choice((("largest", numbers[-1]), ("smallest", numbers[0])))
        return Example("follow_up", (*turns, f"Which is the {which}?"), direct(f"{chosen}."), f"{chosen}.")
    if first.task == "facts" and "capital" in first.expected and roll < 0.6:
        country = rng.choice(list(CAPITALS))
        text = capital_text(country)
        return Example("follow_up", (*turns, f"And the capital of {country}?"), direct(text), text)
    if first.task == "translation" and first.expected.endswith("。") and roll < 0.6:
        word = rng.choice(list(WORDS))
        text = f"{WORDS[word]}。"
        return Example("follow_up", (*turns, f"And {word}?"), direct(text), text)
    again = rng.choice(("Please repeat your answer.", "Say that again."))
    return Example("follow_up", (*turns, again), direct(first.expected), first.expected)


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)


# Share of each task among the general examples. Talk is trained but not scored: seven sentences prove nothing.
TASKS: dict[str, tuple[Callable[[random.Random], Example], float]] = {
    "facts": (facts, 1.0),
    "copying": (copying, 1.5),
    "picking": (picking, 1.2),
    "sorting": (sorting, 1.5),
    "comparing": (comparing, 1.8),
    "translation": (translation, 1.2),
    "sequence": (sequence, 0.8),
    "follow_up": (follow_up, 2.0),
    "talk": (talk, 0.2),
}
SCORED_TASKS = tuple(name for name in TASKS if name != "talk")
