"""Raw text to words with character offsets, and words to text."""

# Look-alikes of ASCII are what is tested here.
# ruff: noqa: RUF001

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from allennlp_metaner.data.characters import without_surrogates
from allennlp_metaner.data.raw_text import CHINESE_OR_KANA, join, tokenize

# Text with many of the places where a tokenizer may lose an offset.
TEXTS = st.text() | st.text(
    alphabet=" \t\n\u00a0\u3000\u200b.,-'’\"()/:@&+_$aÉß9北カ，กાལ་।🙂🇪\u200d\u0301\u200f\ufeff\ud800\udfff"
)


def words_of(text: str) -> list[str]:
    return [token for token, _, _ in tokenize(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Maria visited Madrid.", ["Maria", "visited", "Madrid", "."]),
        ("São Paulo (Brasil), 25 may", ["São", "Paulo", "(", "Brasil", ")", ",", "25", "may"]),
        ("¿Qué pasa en París, «Ana»?", ["¿", "Qué", "pasa", "en", "París", ",", "«", "Ana", "»", "?"]),
        ("Peter's bank won.", ["Peter", "'s", "bank", "won", "."]),
        ("New-York 6-4 1996-08-22", ["New-York", "6-4", "1996-08-22"]),
        ("a -- b 1990–95 c—d e...", ["a", "--", "b", "1990", "–", "95", "c", "—", "d", "e", "..."]),
        ("l'Élysée L’Union qu'il", ["l'", "Élysée", "L’", "Union", "qu'", "il"]),
        ("aujourd'hui O'Neill l'", ["aujourd'hui", "O'Neill", "l", "'"]),
        ("c'c'c'est qu'l'on dell'Utri", ["c'", "c'", "c'", "est", "qu'", "l'", "on", "dell'", "Utri"]),
        ("rock'n'roll 80'erne don't 't Hart 's", ["rock'n'roll", "80'erne", "don't", "'t", "Hart", "'s"]),
        ("'word' \"word\" ''word''", ["'", "word", "'", '"', "word", '"', "''", "word", "''"]),
        ("U.S. U.S.-led J.-P. Sartre", ["U.S.", "U.S.-led", "J.-P.", "Sartre"]),
        (
            "Sr. López, EE.UU. S.A. n.º 3, 1.º",
            ["Sr.", "López", ",", "EE.UU.", "S.A.", "n.º", "3", ",", "1.º"],
        ),
        ("a.m. Ph.D. p. 5 left.Then fin.", ["a.m.", "Ph.D.", "p.", "5", "left", ".", "Then", "fin", "."]),
        ("3.5% 1,000 $5 5€ US$ 20°C", ["3.5", "%", "1,000", "$", "5", "5", "€", "US$", "20", "°", "C"]),
        ("-5 +34 .500 12:30 1/2 1995/96", ["-5", "+34", ".500", "12:30", "1/2", "1995/96"]),
        ("AT&T Canal+ C++ I+D and/or a:b", ["AT&T", "Canal+", "C++", "I+D", "and", "/", "or", "a", ":", "b"]),
        ("Noord- en Zuid-Holland -x", ["Noord-", "en", "Zuid-Holland", "-", "x"]),
        ("_a_ a_b @user #tag", ["_", "a", "_", "a_b", "@user", "#", "tag"]),
        ("Mail a.b@c.de, http://x.org/a?b=1.", ["Mail", "a.b@c.de", ",", "http://x.org/a?b=1", "."]),
        ("(www.a.com) b.org/c-d/e! :-)", ["(", "www.a.com", ")", "b.org/c-d/e", "!", ":-)"]),
        ("王明在Acme，2020年。", ["王", "明", "在", "Acme", "，", "2020", "年", "。"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("２０年\u3000Ａ", ["２０", "年", "Ａ"]),
        ("🙂👩‍👩‍👧🇪🇸!", ["🙂", "👩‍👩‍👧", "🇪🇸", "!"]),
        ("\u200fאבא a\u200bb \u0301x", ["\u200fאבא", "a", "b", "\u0301", "x"]),
        ("\ud800a b\udfff", ["\ufffd", "a", "b", "\ufffd"]),
        (" \t\n\u00a0\u200b", []),
        ("", []),
    ],
)
def test_tokenize(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


# A sentence in each script of the languages of XLM-R, and in Tibetan: "Anna lives in ..." with the words
# apart. Where the script has no blanks, those of ICU's dictionary; a name that it does not have is in pieces.
SCRIPTS = {
    "Latin, composed of letters and accents": "Ana vive en Bogota\u0301 .",
    "Vietnamese": "Bà Anna sống ở Hà Nội .",
    "Turkish": "Anna İstanbul'da yaşıyor .",
    "Catalan": "L' Anna viu a l' Hospitalet .",
    "Greek": "Η Άννα ζει στην Αθήνα ;",
    "Cyrillic": "Анна живёт в Москве .",
    "Armenian": "Որտե՞ղ է ապրում Աննան , Երևանո՛ւմ ։",
    "Georgian": "ანა ცხოვრობს თბილისში .",
    "Hebrew": 'אנה מצה"ל גרה בתל-אביב .',
    "Yiddish": "חנה וואוינט אין ניו־יאָרק .",
    "Arabic": "آنا تعيش في القاهرة ، نعم ؟",
    "Persian": "آنا در تهران زندگی می\u200cکند ؛",
    "Urdu": "انا لاہور میں رہتی ہے ۔",
    "Uyghur": "ئاننا ئۈرۈمچىدە تۇرىدۇ .",
    "Devanagari": "अन्ना दिल्ली में रहती है ।",
    "Bengali": "আন্না ঢাকায় থাকে ।",
    "Gurmukhi": "ਅੰਨਾ ਅੰਮ੍ਰਿਤਸਰ ਵਿੱਚ ਰਹਿੰਦੀ ਹੈ .",
    "Gujarati": "અન્ના અમદાવાદમાં રહે છે .",
    "Oriya": "ଆନ୍ନା ପୁରୀରେ ରହନ୍ତି ।",
    "Tamil": "அன்னா சென்னையில் வசிக்கிறாள் .",
    "Telugu": "అన్నా హైదరాబాద్\u200cలో నివసిస్తుంది .",
    "Kannada": "ಅನ್ನಾ ಬೆಂಗಳೂರಿನಲ್ಲಿ ವಾಸಿಸುತ್ತಾಳೆ .",
    "Malayalam": "അന്ന കൊച്ചിയിൽ താമസിക്കുന്നു .",
    "Sinhala": "ඇනා කොළඹ ජීවත් වේ .",
    "Ethiopic": "አና በአዲስ አበባ ትኖራለች ።",
    "Hangul": "안나는 서울에 산다 .",
}
WITHOUT_BLANKS = {
    "Thai": "แอ น นา อาศัย อยู่ ใน กรุงเทพ .",
    "Lao": "ແອນ ນາ ຢູ່ໃນ ວຽງຈັນ .",
    "Khmer": "អាណា រស់នៅ ក្នុង ភ្នំពេញ ។",
    "Burmese": "အန် နာသည် ရန် ကုန် တွင် ။",
    "Tibetan": "ཨ ་ ན ་ ལྷ ་ ས ་ ལ ་ སྡོད །",
    "Ethiopic with word marks": "አና ፡ በአዲስ ፡ አበባ ፡ ትኖራለች ።",
    "Chinese": "安 娜 住 在 北 京 。",
    "Japanese": "ア ン ナ は 東 京 に 住 む 。",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script: str) -> None:
    words = SCRIPTS[script].split(" ")
    text = SCRIPTS[script].replace("' ", "'")
    for mark in ".;։،؟؛۔।።,":
        text = text.replace(f" {mark}", mark)
    assert words_of(text) == words
    assert words_of(f"«{text}»") == ["«", *words, "»"]


@pytest.mark.parametrize("script", WITHOUT_BLANKS)
def test_scripts_without_blanks(script: str) -> None:
    assert words_of(WITHOUT_BLANKS[script].replace(" ", "")) == WITHOUT_BLANKS[script].split(" ")


# What stands alone in a word that is no word: nothing of it may stay with the last letter.
FULL_STOPS = ".!?…։՜՞؟۔।॥።፧။။។៕།༎。！？๏፨"


@settings(deadline=None)
@given(st.characters(categories=["Lo", "Ll", "Lu", "Mn", "Mc"]), st.sampled_from(FULL_STOPS))
@example("\u0301", ".")
@example("\u093e", ".")
def test_full_stops_are_apart(letter: str, full_stop: str) -> None:
    text = f"xyz{letter}xy{letter}{full_stop}"
    # Armenian sets the marks of questions and exclamations after the vowel that is stressed, inside of words.
    assert full_stop in "՜՞" or words_of(text)[-1] == full_stop


@settings(deadline=None, max_examples=300)
@given(TEXTS)
@example("El \u00a0 X\n\nY ")
@example("l'Élysée，北京 (New-York).")
def test_offsets(text: str) -> None:
    end_before = 0
    for token, start, end in tokenize(text):
        assert without_surrogates(text)[start:end] == token != ""
        # Whatever lies between two tokens is blank: nothing is lost, nothing twice.
        assert start >= end_before and not text[end_before:start].replace("\u200b", "").strip()
        assert token.split() == [token] and "\u200b" not in token
        assert len(token) == 1 or not CHINESE_OR_KANA.search(token)
        end_before = end
    assert not text[end_before:].replace("\u200b", "").strip()


def processor_seconds(text: str) -> float:
    begin = time.process_time()
    tokenize(text)
    return time.process_time() - begin


RUNS = ["🙂", '"', "«", "(", "'", "c'", "d'", "_", ".", "-", "+", "@", "/", ":", "$", "&", "\u0301", "\u200d"]
RUNS += ["a", "a.", "a-", "a_", "a/", "a@", "a+", "a:", "'s", "Aa.", "1:", "1.", "www.", "http://", "-'", "é"]
RUNS += ["ก", "ไทย", "ကို", "北", "カ", 'א"', "a ", " ", "\u200b", "\ud800"]


@pytest.mark.parametrize("unit", RUNS)
def test_time_is_linear(unit: str) -> None:
    short = min(processor_seconds(unit * 2_000) for _ in range(2))
    # Eight times as long; the square would be 64.
    assert processor_seconds(unit * 16_000) < 24 * short + 0.1


@settings(deadline=None)
@given(st.lists(st.text(max_size=6)))
def test_join_offsets(words: list[str]) -> None:
    text, offsets = join(words)
    assert text == " ".join(words)
    assert [text[start:end] for start, end in offsets] == words


@settings(deadline=None)
@given(st.lists(st.text(alphabet="bdéñßж", min_size=1, max_size=6)))
def test_join_then_tokenize(words: list[str]) -> None:
    text, offsets = join(words)
    assert tokenize(text) == [(word, *offset) for word, offset in zip(words, offsets, strict=True)]
