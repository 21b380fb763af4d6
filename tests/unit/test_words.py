"""The words that people text, by language: which are meant, and that no two languages chosen together disagree."""

from __future__ import annotations

import pytest

from dispatcher import ConfigurationError
from dispatcher.settings import load
from dispatcher.words import LANGUAGES, Language, agreed, chosen, listed, plain


@pytest.mark.parametrize(
    ("languages", "text", "verdict"),
    [
        pytest.param("en", "Opt-Out", "out", id="english"),
        pytest.param("es", "¡Baja!", "out", id="spanish"),
        pytest.param("es", "no más", "out", id="spanish, two words"),
        pytest.param("fr", "ARRÊT", "out", id="french, as it is written"),
        pytest.param("fr", "arret", "out", id="french, as it is typed"),
        pytest.param("de", "Abmelden.", "out", id="german"),
        pytest.param("it", "cancellami", "out", id="italian"),
        pytest.param("pt", "SAIR", "out", id="portuguese"),
        pytest.param("nl", "afmelden", "out", id="dutch"),
        pytest.param("pl", "wylacz", "out", id="polish, without its own letters"),
        pytest.param("fr", "Aide ?", "help", id="french help"),
        pytest.param("de", "HILFE", "help", id="german help"),
        pytest.param("es", "alta", "in", id="spanish start"),
        pytest.param("en", "arret", "", id="a word of a language that is not chosen"),
        pytest.param("fr", "unsubscribe", "", id="an english one, where only french is"),
        pytest.param("en, FR", "Unsubscribe", "out", id="of several languages"),
        pytest.param("de", "Bitte nicht stoppen", "", id="in a sentence"),
    ],
)
def test_a_text_that_is_one_of_the_words_is_meant(languages: str, text: str, verdict: str) -> None:
    assert chosen(languages).verdict(text) == verdict


@pytest.mark.parametrize("language", LANGUAGES)
def test_stop_start_and_help_are_understood_in_every_language(language: str) -> None:
    assert [chosen(language).verdict(word) for word in ("stop", "start", "help")] == ["out", "in", "help"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_says_where_its_words_are_from(language: str) -> None:
    told = LANGUAGES[language]
    assert told.source
    assert all(len(listed(words)) == len(words.split(",")) for words in (told.stop, told.start, told.help))


def test_no_two_languages_of_ours_disagree() -> None:
    assert agreed(LANGUAGES).verdict("STOP") == "out"


def test_a_word_that_means_stop_in_one_language_and_start_in_another_is_named() -> None:
    languages = {"xx": Language("STOP,ALTO", "START", "HELP", ""), "yy": Language("STOP", "Altó", "HELP", "")}
    with pytest.raises(ValueError, match=r"xx and yy: 'ALTO' means stop in the one and start in the other"):
        agreed(languages)


@pytest.mark.parametrize(
    ("settings", "words", "verdicts"),
    [
        pytest.param({"stop_words": "HALT"}, ["halt", "stop", "start", "help"], ["out", "", "in", "help"], id="stop"),
        pytest.param({"start_words": "GO"}, ["stop", "go", "start"], ["out", "in", ""], id="start"),
        pytest.param({"help_words": "SOS"}, ["sos", "help", "stop"], ["help", "", "out"], id="help"),
        pytest.param({"stop_words": ""}, ["stop"], [""], id="set to nothing, it is nothing"),
        pytest.param({"stop_words": "YES"}, ["yes"], ["out"], id="in both lists, it stops"),
        pytest.param({"languages": "fr,de"}, ["arrêt", "stopp", "quit"], ["out", "out", ""], id="languages"),
    ],
)
def test_what_is_set_stands_for_the_languages_words(
    settings: dict[str, str], words: list[str], verdicts: list[str]
) -> None:
    found = load(**settings).words
    assert [found.verdict(word) for word in words] == verdicts


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param({"languages": "en,klingon"}, r"DISPATCHER_LANGUAGES names 'klingon'", id="no language of ours"),
        pytest.param({"languages": ","}, "DISPATCHER_LANGUAGES names no language", id="none"),
        pytest.param({"help_text": "Help!"}, "DISPATCHER_HELP_TEXT is one of the words", id="an answer that is a word"),
        pytest.param(
            {"stop_text": "Over", "help_words": "OVER"}, "DISPATCHER_STOP_TEXT is one", id="by another setting"
        ),
        pytest.param({"stop_scope": "tenant"}, "DISPATCHER_STOP_SCOPE", id="a scope that there is not"),
    ],
)
def test_what_cannot_work_is_an_error_that_names_the_setting(settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load(**settings)


def test_words_of_another_alphabet_stay_what_they_are() -> None:
    assert plain("  «СТОП»! ") == "стоп"
    assert plain("ＳＴＯＰ") != "stop"
