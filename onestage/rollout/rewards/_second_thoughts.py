"""What is said beside an answer that makes it none: denials, hedges, and answers taken back.

A number is not given by `not 42`, `more than 42` or `half of 42`, and no longer by `42. Wait, that is
wrong`. Who says so may still be right, so nothing is guessed: such an answer is not judged.
"""

from __future__ import annotations

import re

NEAR = 200
"""Characters before an answer that are looked at."""
FAR = 4000
"""Characters behind it."""
_MARKS = r"[\s$*_`(\[{\\\"']*"
_LINKS = r"(?:(?:an?|the|of|be|it|is|that|to|equal|just|exactly|always|es|ist|est)(?:\s+|\Z)){0,4}"
_DENIALS = (
    r"\b(?:not|no(?![\s$*_`]*\n)|never|neither|nor|cannot|doubt\s+(?:that|it)|rather\s+than|other\s+than|except"
    r"|instead\s+of|nicht|kein\w*|pas|ni|nunca|jamais|\u043d\u0435)\b|n't\b|\u4e0d\u662f|\u975e"
)
_OTHERS = (
    r"\bthan\b|\b(?<!left\s)over\b|\bunder\b|\beither\b"
    r"|\b(?:minus|negative|half(?:\s+of)?|twice|double|triple|(?:square|cube)(?:\s+root)?\s+of|sqrt)\b"
    r"|\b(?:(?:weniger|mehr)\s+als|(?:moins|plus)\s+de|(?:menos|m\u00e1s)\s+de)\b|\u5c0f\u4e8e|\u5927\u4e8e"
)
"""What makes another number of one."""
_BOUNDS = (
    rf"{_OTHERS}|\bat\s+(?:least|most)\b|\bup\s+to\b|\bbetween\b|\b(?:half|root|square|cube|sqrt)(?:\s+of)?\b"
    r"|\b(?:about|approx\w*|roughly|around|nearly|almost|circa|maybe|perhaps|possibly|probably)\b"
    r"|\b(?:etwa|ungef\u00e4hr|environ)\b|[~\u2248<>\u2264\u2265\u2260\u221a]|\u7ea6"
)
_DENIED = re.compile(
    rf"(?:{_DENIALS}){_MARKS}{_LINKS}{_MARKS}\Z|\b(?:wrong|incorrect|false)[\s:$*]*\Z", re.I
)
_HEDGED = re.compile(rf"(?:{_BOUNDS}){_MARKS}\Z", re.I)
_WRONG = r"(?:wrong|incorrect|false|impossible|mistaken|a\s+mistake|not\s+(?:right|correct|it))"
_AFTER = re.compile(
    r"\W*(?:or|and)\s+(?:so|more|less|fewer|above|below|higher|lower|over|under|greater)\b"
    r"|\W*and\s+(?:an?|one|two|three)[\s-]+(?:hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?)\b"
    rf"|\W*(?:is|was|seems|looks)\s+(?:\w+\s+){{0,2}}?{_WRONG}\b|\W*is\s+not\b"
    r"|\W*(?:wrong|incorrect|false|not|approx\w*|at\s+(?:least|most)|maybe|perhaps|nicht|\u043d\u0435)\b"
    r"|[*_`$\s]*[?!]|(?:st|nd|rd|th)\b|\W*(?:\u4ee5\u4e0a|\u4ee5\u4e0b|\u5de6\u53f3)",
    re.IGNORECASE,
)
_BESIDE_BOX = re.compile(
    rf"(?:{_OTHERS}){_MARKS}\Z"
    r"|(?<=[\w)}|])\s*(?:[<>\u2260]|\\(?:neq?|lt|gt)(?![a-z]))[\s$({]*\Z"
    r"|\\[dt]?frac\s*\{[^{}]*\}\s*\{\s*\Z|\\(?:[dt]?frac|sqrt)\s*\{\s*\Z|(?:\A|[^-\s\d)}])-\Z|\d\Z"
    r"|[\d)}]\s*(?:[+*/^]|\\(?:times|cdot|div|pm))\s*\Z",
    re.IGNORECASE,
)
"""In front of a box: what makes another value of what it holds. A minus that stands apart is a dash; `at
least` and `\\ge` are what the solutions of MATH say in front of the least and the most."""
_BEHIND_BOX = re.compile(
    r"\s*(?:\^(?!\s*\{?\s*(?:\\circ|\u00b0))|\\(?:times|cdot|pi|sqrt)(?![a-z]))|[^\S\n]*[*/]\s*[\d\\(]"
    r"|[^\S\n]*[-+][^\S\n]*\d|[\s$)]*(?:hundred|thousand|million|billion|trillion|dozen)\b"
    r"|[\s$*_)`]*(?:(?:or|and)\s+(?:so|more|less|fewer|above|below|higher|lower|over|under|greater)\b"
    rf"|(?:is|was|seems|looks)\s+(?:\w+\s+){{0,2}}?{_WRONG}\b|is\s+not\b|[?\uff1f])",
    re.IGNORECASE,
)
_TAG = re.compile(r"(?:<[^<>\n]{1,40}>\s*)+\Z")
_BEGINS = r"(?:\A|[.!?;\n])[^\w\n.!?]*(?:(?:but|oh|ah|hm+)\W+)?"
_DOUBTED = re.compile(
    rf"{_BEGINS}(?:wait|hm+|actually)\b"
    r"|\blet\s+me\s+(?:re-?(?:do|check|comp|calc|cons|think|count|exam|eval|try)|try|double)",
    re.IGNORECASE,
)
_CONFIRMED = re.compile(
    r"\b(?:that|this|it|which|everything|answer|result)(?:'s|\s+is|\s+was)\s+"
    r"(?:(?:indeed|all|quite|still|also|definitely|absolutely|in\s+fact)\s+)?(?:right|correct|fine)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_TAKEN_BACK = re.compile(
    rf"{_BEGINS}(?:(?:oops|correction|scratch\s+that)\b|sorry\s?[,.:;!]|(?:no|nope)\s?[,.:;!])"
    r"|\bon\s+second\s+thou?ght|\bI\s+take\s+(?:that|it)\s+back|\blet\s+me\s+(?:correct|fix)"
    r"|\bI\s+made\s+(?:an?|some|the|one)\s+(?:\w+\s+){0,2}?(?:mistake|error|slip|typo|miscalculation)"
    r"|\bI\s+(?:was\s+wrong|misread|miscount|miscalc|forgot|changed)"
    r"|\b(?:that|this|it|which|above|answer|result|value)(?:'s|\s+(?:is|was|seems|looks|cannot\s+be))?"
    rf"\s+(?:(?!not\b)\w+\s+)?{_WRONG}\b|\A\W*(?:is|was)\s+(?:(?!not\b)\w+\s+)?{_WRONG}\b"
    r"|\bfalsch\b|\bstimmt\s+nicht|\bincorrecto\b|\bme\s+equivoqu|\bc'est\s+faux"
    "|\u4e0d\u5bf9|\u7b97\u9519|\u9519\u4e86|\u5e94\u8be5\u662f",
    re.IGNORECASE,
)
_SHOULD = re.compile(r"\bshould\s+(?:be|have\s+been)\W+(-?\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)
_FOUND = re.compile(
    r"(?:=|\b(?:is|are|equals?|gives?|makes?|get|still|indeed|answer:|boxed\{)|####)[\s$*(\\{:]*\Z",
    re.IGNORECASE,
)
_QUIET = re.compile(r"\W*(?:[^\W\d_]+(?:\W+|\Z)){0,4}")
"""What may follow a number that was found again: a unit, a full stop, a tick."""
_RESTATED = re.compile(
    r"\banswer\b(?:\s+(?:is|should\s+be)|\s*[:=])[\s$*(\\{]*(-?\d[\d,]*(?:\.\d+)?)(?![\d/\\^])",
    re.I,
)
_MARKED = re.compile(r"(?:####|\\boxed\{)[\s$*]*(-?\d[\d,]*(?:\.\d+)?)(?![\d/\\^])")
_PLAIN = re.compile(r"[^\w\\-]*(-?\d[\d,]*(?:\.\d+)?)[^\d]*")
_STATED = re.compile(
    r"\banswer\b(?:\s+(?:is|should\s+be)|\s*[:=])[\s$*:]*(?:\\[(\[])?\s*((?:[^\n$.*]|\.(?=\d)){1,80})",
    re.I,
)
_SETTING = re.compile(
    r"\s|[\"']|\\?\$|(?<=\d),(?:\\!)?(?=\d{3})|\\(?:left|right|displaystyle|boxed|[,;:!)\]])|[{}]|(?<=\\)[dt](?=frac)"
)
_NEXT_TURN = re.compile(r"\n\s*(?:Q|Question|User|Human|Problem)\s*\d*\s*:")


_ALTERNATIVE = re.compile(
    r"[\s$.,;:)*]*(?:(?:or|and|also|either|option|case|alternatively|possibly|oder|ou|und|o|y|\u6216|\u548c)\b"
    r"(?!.*\b(?:answer|thus|therefore|so|hence|final\w*|total|sum|really|correct\w*)\b).{0,25})?",
    re.IGNORECASE,
)


def alternative(between: str) -> bool:
    """Whether what stands between two answers leaves both: `or`, `and`, a comma, nothing."""
    return len(between) <= NEAR and _ALTERNATIVE.fullmatch(between) is not None


def denied(before: str) -> bool:
    """Whether what stands before an answer says that it is none: `it is not`."""
    return _DENIED.search(before[-NEAR:]) is not None


def beside_box(before: str, behind: str) -> bool:
    """Whether what touches a box makes another value of what it holds: `-\\boxed{42}`, `\\boxed{42}^2`,
    `more than \\boxed{42}`. About so much is what was found."""
    near = _TAG.sub("", before[-NEAR:])
    return bool(_BESIDE_BOX.search(near) or _BEHIND_BOX.match(behind[:NEAR]))


def hedged(before: str, behind: str) -> bool:
    """Whether what stands around a number makes another of it, or none: `more than`, `or so`."""
    near = before[-NEAR:]
    return bool(_DENIED.search(near) or _HEDGED.search(near) or _AFTER.match(behind[:NEAR]))


def taken_back(behind: str, final: str) -> bool:
    """Whether what follows an answer says that it was wrong, or states another number."""
    said = _NEXT_TURN.split(behind[:FAR])[0]
    own = _PLAIN.fullmatch(final)
    doubt = _DOUBTED.search(said)
    if _TAKEN_BACK.search(said) or (doubt and not _confirmed(said[doubt.end() :], own)):
        return True
    should, restated = _SHOULD.findall(said), (*_RESTATED.findall(said), *_MARKED.findall(said))
    if own is None:
        return bool(should) or any(_another(stated, final) for stated in _STATED.findall(said))
    if any(stated.startswith(("\\frac", "\\dfrac", "\\sqrt")) for stated in _STATED.findall(said)):
        return True
    return any(_value(number) != _value(own[1]) for number in (*should, *restated))


def _another(stated: str, final: str) -> bool:
    """Whether an answer that is stated once more, in figures, is another one as it is written."""
    bare, own = (_SETTING.sub("", text) for text in (stated, final))
    figures = re.search(r"\d|\\", bare) is not None
    return figures and not bare.startswith(own) and not own.startswith(bare)


def _confirmed(said: str, own: re.Match[str] | None) -> bool:
    """Whether a doubt ends in the same number again, or in "that is right", said of the same number: of
    the last one before it, if there is any. Another answer that is called right is no confirmation."""
    if own is not None and _found_again(said, own[1]):
        return True
    found = list(_CONFIRMED.finditer(said))
    if not found or _DOUBTED.search(said[found[-1].end() :]):
        return False
    before = said[: found[-1].start()]
    numbers = _NUMBER.findall(before)
    if own is None or not numbers:
        return not numbers and "\\" not in before
    return _value(numbers[-1]) == _value(own[1])


def _found_again(said: str, own: str) -> bool:
    """Whether a doubt ends in the same number, found once more: `Let me check: 40 + 2 = 42 eggs.`"""
    numbers = list(_NUMBER.finditer(said))
    if not numbers or _value(numbers[-1][0]) != _value(own):
        return False
    before, behind = said[: numbers[-1].start()], said[numbers[-1].end() :]
    quiet = _QUIET.fullmatch(behind) and not re.search(rf"[?]|{_DENIALS}", behind, re.IGNORECASE)
    doubted = hedged(before, behind) or _DOUBTED.search(behind)
    return bool(quiet and _FOUND.search(before) and not doubted)


def _value(number: str) -> float:
    return float(number.replace(",", ""))
