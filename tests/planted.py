"""Rows of a shop's assistant with planted defects of many forms, and sound rows that resemble defects."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

NUM_ROWS = 5_000
NUM_HELD_OUT = 200
SYSTEM = "You are Spokewise, the assistant of a bicycle workshop. Answer briefly."
ASKERS = [
    "Quick question from {}:",
    "Hello, {} here.",
    "I ride near {}.",
    "My shop in {} asks:",
    "Note from {}:",
    "{} speaking.",
]
PLACES = [
    "Ghent", "Utrecht", "Porto", "Graz", "Lyon", "Turin", "Malmö", "Łódź", "Sevilla", "Bergen", "Cork", "Basel", "Split",
    "Tartu", "Aarhus", "Linz", "Nantes", "Oulu", "Brno", "Gijón", "Bristol", "Zürich", "Kraków", "Odense", "Münster",
]  # fmt: skip
PARTS = [
    "rear hub", "front fork", "disc rotor", "bottom bracket", "chain ring", "cassette", "seat post", "brake lever",
    "shift cable", "headset", "tubeless tire", "dynamo lamp", "crank arm", "derailleur hanger", "handlebar tape", "pedal axle",
    "wheel rim", "spoke nipple", "luggage rack", "mudguard stay", "free hub body", "jockey wheel", "kickstand", "quick release",
]  # fmt: skip
FAULTS = [
    "clicks under load", "wobbles at speed", "rubs after rain", "has worked loose", "squeaks all day", "looks bent",
    "slips when I climb", "feels rough by hand", "lost its grease", "leaks a little oil", "was fitted backwards",
]  # fmt: skip
VERBS = [
    "Inspect",
    "Clean",
    "Measure",
    "Loosen",
    "Replace",
    "Tighten",
    "Grease",
    "Align",
    "Support",
    "Mark",
    "Unscrew",
    "Rinse",
]
TOOLS = [
    "a torque wrench", "a soft brush", "the chain whip", "a steel ruler", "two tire levers", "a cone spanner", "warm water",
    "a rubber mallet", "some carrier paste", "a spoke key", "clean rags", "the bearing press",
]  # fmt: skip
REASONS = [
    "since play there wears the threads", "as grit hides behind the seal", "because the alloy is soft", "or the noise returns",
    "while the bike hangs in the stand", "before the next long descent", "as the maker's manual demands", "until no gap is left",
    "so that the bearing runs freely", "and check it again after a week", "which saves an expensive repair",
]  # fmt: skip
NEW_ANSWERS = [
    "That one is beyond repair: order a new part and let us fit it while you wait.",
    "Ride on without worry, this noise comes from the frame bag and not from the wheel at all.",
    "Bring it in on a weekday morning, the mechanic wants to hear it himself before he decides.",
    "It is covered by the warranty of the maker, so send us the receipt and we order the spare part.",
]


def answer(chance: random.Random) -> str:
    """Two to four sentences of advice."""
    sentences = [
        f"{chance.choice(VERBS)} the {chance.choice(PARTS)} with {chance.choice(TOOLS)}, {chance.choice(REASONS)}."
        for _ in range(chance.randint(2, 4))
    ]
    return " ".join(sentences)


def row(chance: random.Random) -> dict[str, Any]:
    asker = chance.choice(ASKERS).format(chance.choice(PLACES))
    asked = (
        f"{asker} My {chance.choice(PARTS)} {chance.choice(FAULTS)}, and the {chance.choice(PARTS)} beside it too. Why?"
    )
    messages = [("system", SYSTEM), ("user", asked), ("assistant", answer(chance))]
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def different_rows(chance: random.Random, number: int) -> list[dict[str, Any]]:
    """Rows that all ask something else."""
    made: dict[str, dict[str, Any]] = {}
    while len(made) < number:
        new = row(chance)
        made.setdefault(new["messages"][1]["content"], new)
    return list(made.values())


def sound_rows(chance: random.Random) -> list[dict[str, Any]]:
    """Rows that a careless detector would report."""

    def chat(asked: str, said: str, *more: str) -> dict[str, Any]:
        texts = [asked, said, *more]
        messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
        return {"messages": [{"role": "system", "content": SYSTEM}, *messages]}

    made = []
    for number in range(40):
        part, other = chance.choice(PARTS), chance.choice(PARTS)
        made += [
            chat(f"How much torque for bolt {number} of the {part} in total?", f"Bolt {number} of the {part} takes 5 Nm, not more."),
            chat(f"Which of these is round, case {number}?\nA) {part}\nB) the frame", f"A: {part}, as in case {number}."),
            chat(f"How do I write {part} {number} in HTML?", f"Write <b>{part} {number} &amp; more</b>, with &amp; as entity."),
            chat(f"Give me code that prints {part} {number}.", f'```python\nprint("{part} {number}")\n```'),
            chat(f"Name two facts on order {number}.", f"**Part:** {part} {number}\n\n**Spare:** {other} for case {number}"),
            chat(f"Is the {part} of order {number} in stock?", f"I'm sorry, the {part} of order {number} is sold out until May."),
            chat(f"Where is parcel 1Z999AA1{number:010}?", f"Parcel 1Z999AA1{number:010} with your {part} arrives on Friday."),
            chat(f"Rate ride {number} on the {other}.", "👍" if number % 2 else f"{number}"),
            chat(f"دوچرخه {number} می\u200cخواهم", f"👨\u200d🔧 fixes it as job {number}, with the {part}."),
            chat(f"Que faire du numéro {number} ?", f"Vérifiez d’abord « {part} » à Genève, puis réglez-le à {number} °C."),
            chat(f"Mail the shop about {part} {number}?", f"Write to sales@example.com about the {part} {number}."),
            chat(f"Quiz {number} on the {part}?", f"Q: What is the {part}?\nA: A part.\n\nQ: Its number?\nA: It is {number}."),
        ]  # fmt: skip
    return made


@dataclass
class Planted:
    """Rows, held-out rows, and the lines that hold each kind of defect, from 1."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


def forms() -> dict[str, list[Any]]:
    """The forms of each defect: what becomes of an answer, unless a function takes the question too."""
    key = "".join(random.Random(3).choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=80))
    return {
        "MOJIBAKE": [
            lambda a: f"Café: {a} Größe M.".encode().decode("cp1252"),
            lambda a: f"{a} It’s “fine”.".encode().decode("cp1252", errors="ignore").replace("â€\x9d", "â€"),
            lambda a: f"Señor, {a} ¿Sí?".encode().decode("latin-1"),
            lambda a: f"{a} Prix\u00a0: 5 €, à régler.".encode().decode("cp1252"),
            lambda a: f"Привет! {a} Хорошей дороги.".encode().decode("cp1251", errors="replace").replace("\ufffd", "?"),
            lambda a: f"naïve: {a} é".encode().decode("cp1252").encode().decode("cp1252"),
        ],
        "LOST_CHARACTER": [lambda a: f"Caf\ufffd: {a}", lambda a: f"{a} It\ufffds fine.", lambda a: a.replace(" ", "\ufffd", 1)],
        "CONTROL": [lambda a: f"\x1b[1m{a}\x1b[0m", lambda a: f"{a}\x00".replace("\x00", "\x07"), lambda a: a.replace(" ", "\x0b", 1),
                    lambda a: a.replace(", ", ",\x08 ", 1), lambda a: f"{a}\x7f"],
        "INVISIBLE": [lambda a: a.replace(" ", "\u200b ", 1), lambda a: f"\ufeff{a}", lambda a: a.replace("the", "t\u00adhe", 1),
                      lambda a: f"{a}\u200e", lambda a: a.replace("the", "t\u200dhe", 1), lambda a: f"\u202a{a}\u202c"],
        "ENTITY": [lambda a: f"Nuts &amp; bolts: {a}", lambda a: f"It&#39;s simple. {a}", lambda a: f"{a} Leave 2&nbsp;mm.",
                   lambda a: f"{a} &quot;Easy&quot;.", lambda a: f"{a} Size &lt; 5.", lambda a: f"Caf&eacute; tip: {a}"],
        "FENCE": [lambda a: f"```\n{a}\n```", lambda a: f"```markdown\n{a}\n```", lambda a: f"{a}\n```", lambda a: f"```text\n{a}",
                  lambda a: "```json\n" + json.dumps({"advice": a}) + "\n```"],
        "NEXT_QUESTION": [lambda a: f"{a}\n\n---\n\n**Q: What about the pedals?**", lambda a: f"{a}\n\nQ: Is it safe to ride?",
                          lambda a: f"{a}\n\n**Q2:** How long does it take?  \n", lambda a: f"{a}\n\nUser: Thanks, and the bell?",
                          lambda a: f"{a}\nQuestion 4: How often?", lambda a: f"{a}\n\n### Question: And then?"],
        "LABEL": [lambda a: f"**Answer:** {a}", lambda a: f"A: {a}", lambda a: f"Assistant: {a}", lambda a: f"### Response:\n{a}",
                  lambda a: f"ANSWER: {a}", lambda a: f"**A3:** {a}", lambda a: f"AI: {a}", lambda a: f"**Answer**: {a}",
                  lambda a: f"Réponse : {a}", lambda a: f"Bot: {a}", lambda a: f"## Answer\n{a}"],
        "MARKUP": [lambda a: f"** {a}", lambda a: f"{a}**", lambda a: f"{a}\n\n---", lambda a: f"{a} ##", lambda a: f"###\n{a}",
                   lambda a: f"{a}<|im_end|>", lambda a: f"{a}</s>", lambda a: f"{a}\n\n**", lambda a: f"***\n\n{a}"],
        "EMPTY": [lambda a, said=said: said for said in ("...", "-", "N/A", "nan", "[answer]", "**Answer:**", "?", "…", "TODO", "null")],
        "REFUSAL": [lambda a, said=said: said for said in (
            "I'm sorry, but I can't help with that.", "As an AI language model, I do not have access to your bicycle.",
            "I’m sorry, but I cannot provide advice on this topic.", "I am unable to assist with this request.",
            "Sorry, as an AI assistant I can't look at your bike.", "Es tut mir leid, aber dabei kann ich nicht helfen.",
            "Je suis désolé, mais je ne peux pas vous aider.", "Lo siento, pero no puedo ayudarte con esa pregunta.",
            "很抱歉，我无法回答这个问题。", "I cannot fulfill that request as it may be unsafe.", "I must decline this one.")],
        "LONG": [lambda a: f"{a} " * 400],
        "SECRET": [
            lambda a: f"{a} Use AKIA{key[:16].upper().replace('I', 'J')}.", lambda a: f"{a} Token: ghp_{key[:36]}",
            lambda a: f"Set hf_{key[:34]} first. {a}", lambda a: f"{a} AccountKey={(key * 2)[:86]}==",
            lambda a: f"{a} xoxb-{key[:12]}-{key[12:36]}", lambda a: f"{a} AIza{key[:35]} is ours.",
            lambda a: f"postgres://shop:{key[:14]}@db.contoso-bikes.com/main {a}", lambda a: f'{a} password = "{key[3:23]}"',
            lambda a: f"{a} sk_live_{key[:24]}", lambda a: f"-----BEGIN RSA PRIVATE KEY-----\n{key}\n {a}",
            lambda a: f"{a} glpat-{key[:20]}", lambda a: f"{a} secret: {key[5:45]}",
        ],
        "PERSONAL_DATA": [
            lambda a: f"{a} Mail maria.keller@contoso-bikes.com.", lambda a: f"{a} Call +49 89 317 60 55.",
            lambda a: f"{a} Her card is 4111 1111 1111 1111.", lambda a: f"{a} IBAN DE89 3704 0044 0532 0130 00.",
            lambda a: f"{a} SSN 123-45-6789.", lambda a: f"{a} Ring (425) 882-8080 for him.", lambda a: f"{a} jo@fabrikam.co.uk knows.",
            lambda a: f"{a} Pay to GB29NWBK60161331926819.", lambda a: f"{a} Card 5500005555555559 was charged.",
        ],
    }  # fmt: skip


def nearly(text: str, chance: random.Random, form: int) -> str:
    """The text with a small change, one of eight forms."""
    while (changed := _nearly(text, chance, form)) == text:
        pass
    return changed


def _nearly(text: str, chance: random.Random, form: int) -> str:
    words = text.split()
    at = chance.randrange(2, len(words) - 2)
    match form % 8:
        case 0:
            words[at] = "maybe"
        case 1:
            del words[at]
        case 2:
            words[at], words[at + 1] = words[at + 1], words[at]
        case 3:
            words[at] = words[at][:1] + words[at][1:][::-1]
        case 4:
            return f"{text} Good luck!"
        case 5:
            words.insert(at, "really")
        case 6:
            return text.upper()
        case 7:
            return f"Well, {text[0].lower()}{text[1:]}"
    return " ".join(words)


SYSTEMS = [
    SYSTEM.lower(), SYSTEM.replace(". Answer", ".  Answer"), SYSTEM.removesuffix("."), SYSTEM.replace(",", ""), f" {SYSTEM}\n",
    SYSTEM.replace("assistant", "Assistant"), SYSTEM.upper(),
]  # fmt: skip


def plant(per_kind: int = 25, seed: int = 0) -> Planted:
    """5,000 rows in random order, with `per_kind` defects of each kind; none is planted into another's row."""
    chance = random.Random(seed)
    made = different_rows(chance, NUM_ROWS)
    sound = sound_rows(chance)
    made[: len(sound)] = sound
    targets = iter(range(NUM_ROWS - 1, len(sound), -1))  # each an ordinary row, used once
    marks: list[tuple[str, int]] = []
    held_out = different_rows(chance, NUM_HELD_OUT)

    def said(index: int) -> dict[str, Any]:
        return made[index]["messages"][-1]

    for kind, changes in forms().items():
        for number in range(per_kind):
            target = next(targets)
            said(target)["content"] = changes[number % len(changes)](said(target)["content"])
            marks.append((kind, target))
    for number in range(per_kind):
        target = next(targets)
        made[target]["messages"][0]["content"] = SYSTEMS[number % len(SYSTEMS)]
        marks.append(("SYSTEM_VARIANT", target))
    pairs: list[tuple[str, int, int]] = []
    for number in range(per_kind):
        for kind in ("DUPLICATE", "NEAR_DUPLICATE", "CONFLICT"):
            first, second = next(targets), next(targets)
            made[second] = json.loads(json.dumps(made[first]))
            if kind == "DUPLICATE" and number % 2:
                said(second)["content"] = said(second)["content"].replace(" ", "  ", 2) + "\n"
            if kind == "NEAR_DUPLICATE":
                said(second)["content"] = nearly(said(second)["content"], chance, number)
            if kind == "CONFLICT":
                said(second)["content"] = NEW_ANSWERS[number % len(NEW_ANSWERS)]
                asked = made[second]["messages"][1]
                asked["content"] = [asked["content"], asked["content"].lower(), asked["content"] + "?"][number % 3]
            pairs.append((kind, first, second))
        leaked = next(targets)
        held_out[number] = json.loads(json.dumps(made[leaked]))
        if number % 3:
            held_out[number]["messages"][-1]["content"] = nearly(said(leaked)["content"], chance, number)
        marks.append(("LEAK", leaked))
    order = chance.sample(range(NUM_ROWS), NUM_ROWS)
    place = {index: line for line, index in enumerate(order, 1)}
    planted = Planted([made[index] for index in order], held_out)
    for kind, index in marks:
        planted.lines[kind].add(place[index])
    for kind, first, second in pairs:
        both = {place[first], place[second]}
        planted.lines[kind] |= both if kind == "CONFLICT" else {max(both)}
    return planted
