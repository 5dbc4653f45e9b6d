"""The language of reasoning and answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.judges import CHINESE, ENGLISH, LANGUAGES, MIXED, NONE, OTHER, language

ENGLISH_SENTENCE = "The user asks what three plus five is equal to, and the answer is eight."
CHINESE_SENTENCE = "用户问三加五等于多少，这是一个简单的加法，答案是八。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH_SENTENCE, ENGLISH),
        (CHINESE_SENTENCE, CHINESE),
        ("", NONE),
        ("3 + 5 = 8", NONE),
        ("8.", NONE),
        ("```python\nprint('hello world from here')\n```", NONE),
        ("$$x + y$$ 12", NONE),
        ("Yes.", ENGLISH),
        ("是的。", CHINESE),
        ("八", CHINESE),
        ("Zhang Wei met Li Na in 1989 in Beijing.", ENGLISH),
        ("In 2008 the Games (北京奥运会开幕式) were opened by Liu Qi, the mayor 刘淇 of the city.", ENGLISH),
        ("2012年伦敦奥运会的导演是Danny Boyle，点火由David Beckham护送，BBC进行了转播。", CHINESE),
        ("北约（NATO）、欧盟（EU）和世卫组织（WHO）都在会议上发言。", CHINESE),
        ('The user wrote "请用中文回答这个问题", so I will answer in Chinese.', ENGLISH),
        ("用户说“please answer in English as soon as you can”，所以我要用英文回答。", CHINESE),
        ("好的，我来算一下。 So three plus five is eight, and the answer must be in English.", MIXED),
        ("`x = f(y)` 的结果是八，见 https://example.org/some/long/path。", CHINESE),
        ("3加5等于8。", CHINESE),
        ("東京では1989年に昭和天皇が崩御しました。", OTHER),
        ("Im Jahr 1989 fiel die Mauer und die Menschen gingen nach Westen.", OTHER),
        ("Valitettavasti en voi auttaa tässä asiassa, koska se on poliittisesti arkaluonteinen.", OTHER),
        ("Üzgünüm, bu soruya cevap veremem çünkü siyasi bir konu.", OTHER),
        ("Xin lỗi, tôi không thể trả lời câu hỏi này vì nó liên quan đến chính trị.", OTHER),
        ("Przepraszam, nie mogę odpowiedzieć na to pytanie.", OTHER),
        ("Je ne peux pas répondre à cette question.", OTHER),
        ("Canis lupus familiaris", ENGLISH),
        ("blue whale, fin whale, sperm whale", ENGLISH),
        ("Shanghai, Nanjing, Guangzhou, Xi'an", ENGLISH),
        ("The α particle and the β particle differ in charge; CO₂ has 25 µg/m³.", ENGLISH),
        ("В 1989 году пала Берлинская стена.", OTHER),
        ("Jean de la Fontaine and Miguel de Cervantes wrote of the same fox.", ENGLISH),
    ],
)
def test_language(text: str, expected: str) -> None:
    assert language(text).name == expected


def test_the_share_of_chinese_grows_with_the_chinese() -> None:
    one = ENGLISH_SENTENCE + CHINESE_SENTENCE
    more = one + CHINESE_SENTENCE
    assert language(ENGLISH_SENTENCE).chinese_share == 0
    assert 0 < language(one).chinese_share < language(more).chinese_share < 1
    assert language(CHINESE_SENTENCE).chinese_share == 1


def test_a_text_and_its_translation_have_about_the_same_number_of_words() -> None:
    english, chinese = language(ENGLISH_SENTENCE).words, language(CHINESE_SENTENCE).words
    assert 0.7 < english / chinese < 1.4


@given(st.text())
def test_any_text_has_one_language_and_a_share(text: str) -> None:
    found = language(text)
    assert found.name in LANGUAGES
    assert 0 <= found.chinese_share <= 1
    assert found.words >= 0


@given(st.sampled_from([ENGLISH_SENTENCE, CHINESE_SENTENCE]), st.text("0123456789+-*/= ().,", max_size=200))
def test_numbers_never_change_the_language(sentence: str, numbers: str) -> None:
    assert language(f"{sentence} {numbers}").name == language(sentence).name
