"""What people text to stop, to start again and to get help, by language, and how a text is held against it.

A word counts when it is the whole text. Case and accents make no difference (`ARRÊT` is `arret`), nor does what is
around it: blanks, quotes, full stops. Nothing looks for a word within a sentence, where it may mean its opposite.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

#: "out": no more texts. "in": texts again. "help": who are you. "": something else.
Verdict: TypeAlias = Literal["out", "in", "help", ""]

#: What is before and after a word that may be meant as one of these: blanks, quotes, full stops.
_AROUND: Final = re.compile(r"^[\W_]+|[\W_]+$")

#: Characters of a text that may be one of the words.
_LONGEST: Final = 160

#: Letters that Unicode does not take apart, and that people without them on their phone write so.
_PLAIN: Final = str.maketrans("łøđı", "lodi")


class Language(msgspec.Struct, frozen=True):
    """The words of one language, each list separated by commas, and where they are from."""

    stop: str
    start: str
    help: str
    source: str


#: By ISO 639-1. The international three are in each: carriers and vendors ask for them everywhere.
LANGUAGES: Final[Mapping[str, Language]] = {
    "en": Language(
        "STOP,STOPALL,STOP ALL,UNSUBSCRIBE,CANCEL,END,QUIT,OPTOUT,OPT-OUT,OPT OUT,REVOKE",
        "START,UNSTOP,YES",
        "HELP,INFO",
        "47 CFR 64.1200(a)(10) names stop, quit, end, revoke, opt out, cancel, unsubscribe; the rest as United States "
        "carriers and vendors have it",
    ),
    "es": Language(
        "STOP,BAJA,DAR DE BAJA,CANCELAR,PARAR,DETENER,NO MAS",
        "START,ALTA,INICIAR",
        "HELP,AYUDA,INFO",
        "common usage: BAJA in Spain and Latin America, NO MAS in the United States",
    ),
    "fr": Language(
        "STOP,ARRET,ARRETER,DESABONNER,DESINSCRIRE,FIN",
        "START,DEBUT,REPRENDRE",
        "HELP,AIDE,INFO",
        "ARRET and AIDE as Canadian carriers ask for, STOP as in France; the rest common usage",
    ),
    "de": Language("STOP,STOPP,ABMELDEN,ABBESTELLEN,ENDE", "START,ANMELDEN", "HELP,HILFE,INFO", "common usage"),
    "it": Language(
        "STOP,FERMA,CANCELLA,CANCELLAMI,DISISCRIVI,BASTA", "START,INIZIA,ISCRIVI", "HELP,AIUTO,INFO", "common usage"
    ),
    "pt": Language(
        "STOP,PARAR,PARE,SAIR,CANCELAR,REMOVER",
        "START,VOLTAR,INICIAR",
        "HELP,AJUDA,INFO",
        "common usage: SAIR in Brazil",
    ),
    "nl": Language("STOP,STOPPEN,AFMELDEN,UITSCHRIJVEN,UIT", "START,AAN,AANMELDEN", "HELP,HULP,INFO", "common usage"),
    "pl": Language("STOP,WYPISZ,WYŁĄCZ,REZYGNUJĘ,KONIEC", "START,WZNÓW,WŁĄCZ", "HELP,POMOC,INFO", "common usage"),
    "sv": Language("STOP,STOPP,SLUTA,AVSLUTA", "START,STARTA", "HELP,HJÄLP,INFO", "common usage"),
    "da": Language("STOP,AFMELD,SLUT", "START,TILMELD", "HELP,HJÆLP,HJAELP,INFO", "common usage"),
    "nb": Language("STOP,STOPP,AVSLUTT,AVMELD", "START,PÅMELD", "HELP,HJELP,INFO", "common usage"),
    "fi": Language("STOP,LOPETA,PERUUTA", "START,ALOITA", "HELP,APUA,OHJE,INFO", "common usage"),
    "cs": Language("STOP,ODHLÁSIT,ZRUŠIT,KONEC", "START,PŘIHLÁSIT", "HELP,POMOC,INFO", "common usage"),
    "ro": Language("STOP,DEZABONARE,ANULARE", "START,ABONARE", "HELP,AJUTOR,INFO", "common usage"),
    "tr": Language("STOP,RET,IPTAL,DUR", "START,BASLA", "HELP,YARDIM,BILGI", "common usage: RET and IPTAL in Turkey"),
}


def plain(word: str) -> str:
    """Return a word as words are compared: no case, no accents, one blank between its parts, nothing around it."""
    # Canonically taken apart, so that letters of another width or script stay what they are.
    apart = unicodedata.normalize("NFD", _AROUND.sub("", word).casefold())
    bare = "".join(one for one in apart if not unicodedata.combining(one)).translate(_PLAIN)
    return " ".join(bare.split())


def listed(told: str) -> list[str]:
    """Return the words of a list separated by commas, as they are compared."""
    return [word for one in told.split(",") if (word := plain(one))]


def codes(told: str) -> tuple[str, ...]:
    """Read languages, separated by commas. Raises `ValueError` naming one that there is not."""
    named = tuple(dict.fromkeys(one.strip().lower() for one in told.split(",") if one.strip()))
    for one in named:
        if one not in LANGUAGES:
            raise ValueError(f"names {one!r}, whose words are not known; there are {', '.join(LANGUAGES)}")
    if not named:
        raise ValueError(f"names no language; there are {', '.join(LANGUAGES)}")
    return named


class Words(msgspec.Struct, frozen=True):
    """The words that count here."""

    stop: frozenset[str]
    start: frozenset[str]
    help: frozenset[str]

    def verdict(self, text: str) -> Verdict:
        """Return what a text asks for: it must be one of the words and nothing else.

        One that the settings have in several lists stops: who is in doubt is left alone.
        """
        if len(text) > _LONGEST:
            # None of the words; taking off what is around it would take long, too.
            return ""
        word = plain(text)
        if word in self.stop:
            return "out"
        return "in" if word in self.start else "help" if word in self.help else ""


@lru_cache(maxsize=16)
def chosen(languages: str, stop: str | None = None, start: str | None = None, help_: str | None = None) -> Words:
    """Return the words of `languages`, and instead of them those that are given.

    Raises `ValueError` naming a language that there is not, or a word that means one thing in one of them and another
    thing in another.
    """
    own = agreed({one: LANGUAGES[one] for one in codes(languages)})
    return Words(
        *(
            known if told is None else frozenset(listed(told))
            for told, known in ((stop, own.stop), (start, own.start), (help_, own.help))
        )
    )


def agreed(languages: Mapping[str, Language]) -> Words:
    """Return the words of all these languages. Raises `ValueError` where two of them disagree."""
    meanings: dict[str, tuple[str, str]] = {}
    for code, one in languages.items():
        for meaning, words in (("stop", one.stop), ("start", one.start), ("help", one.help)):
            for word in listed(words):
                before, where = meanings.setdefault(word, (meaning, code))
                if before != meaning:
                    raise ValueError(
                        f"cannot have both {where} and {code}: {word.upper()!r} means {before} in the one and "
                        f"{meaning} in the other; leave one of them out"
                    )
    return Words(*(_of(meanings, meaning) for meaning in ("stop", "start", "help")))


def _of(meanings: Mapping[str, tuple[str, str]], meaning: str) -> frozenset[str]:
    return frozenset(word for word, (means, _) in meanings.items() if means == meaning)
