"""Answers without content, and answers that only refuse."""

import re

MAX_REFUSAL_CHARS = 400

_PLACEHOLDER = re.compile(
    r"\W*(?:nan|n/a|null|undefined|todo|tbd|lorem ipsum.{0,400}|(?:insert |your )?(?:answer|response|text)(?: goes)? here|"
    r"\[(?:answer|response|text|blank)\]|<(?:answer|response|text|blank)>)\W*",
    re.IGNORECASE | re.DOTALL,
)
_WITH_CONTENT = re.compile(
    r"[^\W_]|[+=<>$%]|[^\s!-/:-@\[-`{-~\u2010-\u2027\u2030-\u205e\u3000-\u303f\u200b-\u200f\ufeff]"
)
_ONLY_A_LABEL = re.compile(r"[\W_]*(?:answer|response|assistant|question|user)\s*(?:\*\*)?\s*:[\W_]*", re.IGNORECASE)

_PAUSE = r"[\s,.;:–—，。、-]{0,4}"
_SORRY = (
    r"(?:i(?:'|’)?m (?:really |very |truly |so )?sorry|i am (?:really |very |truly |so )?sorry|sorry|i apologi[sz]e|"
    r"my apologies|unfortunately)"
)
_CANNOT = (
    r"(?:cannot|can(?:'|’)?t|can not|won(?:'|’)?t|will not|am (?:not able|unable) to|(?:'|’)m (?:not able|unable) to)"
)
_HELP = "help|assist|answer|provide|comply|fulfill|fulfil|generate|create|write|discuss|engage|support|share|give"
_AI = r"as an ai(?:,| language| model| assistant| chatbot| system)|as a (?:large )?language model|i(?:'|’)?m (?:just|only) an ai"
_PATTERNS = (
    # English
    rf"(?:{_SORRY}{_PAUSE})?(?:but )?(?:{_AI}).{{0,80}}(?:n(?:'|’)t|\bnot\b|cannot|unable)",
    rf"{_SORRY}{_PAUSE}(?:but )?i ?{_CANNOT} (?:{_HELP}|do that)\b",
    rf"i ?{_CANNOT} (?:{_HELP})\b(?: you)?(?: with| to| in)? (?:that|this|your|such|the request)\b",
    r"i (?:must|have to) (?:decline|refuse)|i (?:do not|don(?:'|’)?t) feel comfortable|i(?:'|’)?m not (?:comfortable|programmed)",
    # German, French, Spanish, Portuguese, Italian, Dutch
    rf"(?:(?:es )?tut mir leid|entschuldigung|leider){_PAUSE}(?:aber )?(?:dabei |das )?(?:ich kann|kann ich).{{0,60}}"
    r"(?:helfen|beantworten|erfüllen|nachkommen|bereitstellen|erstellen)",
    r"als (?:ki|künstliche intelligenz|sprachmodell|ki-modell|ki-sprachmodell)\b.{0,80}(?:nicht|kein)",
    rf"(?:je suis désolée?|désolée?){_PAUSE}(?:mais )?je ne (?:peux|suis).{{0,40}}(?:aider|répondre|fournir|faire|mesure)",
    r"en tant qu(?:'|’)?(?:ia|intelligence artificielle|e modèle de langage)\b.{0,80}(?:pas|ne )",
    rf"(?:lo siento|disculpa|lo lamento){_PAUSE}(?:pero )?no puedo (?:ayudar|responder|proporcionar|cumplir|hacer|asistir|generar)",
    r"como (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b.{0,80}\bno\b",
    rf"(?:desculpe|sinto muito|lamento){_PAUSE}(?:mas )?(?:eu )?não posso (?:ajudar|responder|fornecer|atender|fazer|gerar)",
    r"como (?:uma |um )?(?:ia|inteligência artificial|modelo de linguagem)\b.{0,80}não",
    rf"(?:mi dispiace|scusa){_PAUSE}(?:ma )?non posso (?:aiutar|risponder|fornir|soddisfar|far|generar)",
    r"come (?:ia|intelligenza artificiale|modello linguistico)\b.{0,80}\bnon\b",
    rf"(?:het spijt me|sorry){_PAUSE}(?:maar )?(?:daar )?(?:ik kan|kan ik).{{0,40}}(?:helpen|beantwoorden|voldoen)",
    r"als (?:ai|taalmodel)\b.{0,80}(?:niet|geen)",
    # Polish, Swedish, Turkish, Russian
    rf"(?:przykro mi|przepraszam){_PAUSE}(?:ale )?nie mogę.{{0,20}}(?:pomóc|odpowiedzieć|spełnić|wygenerować|udzielić)",
    r"jako (?:sztuczna inteligencja|model językowy)\b.{0,80}nie",
    rf"(?:jag är ledsen|tyvärr){_PAUSE}(?:men )?(?:jag kan|kan jag) inte.{{0,20}}(?:hjälpa|svara|ge|skapa)",
    r"som (?:en )?(?:ai|språkmodell)\b.{0,80}inte",
    rf"üzgünüm{_PAUSE}(?:ama )?.{{0,40}}(?:yardımcı olamam|yapamam|cevaplayamam|olamıyorum)",
    r"bir (?:yapay zeka|dil modeli) olarak",
    rf"(?:извините|простите|к сожалению|мне жаль){_PAUSE}(?:но )?я не (?:могу|в состоянии).{{0,20}}"
    r"(?:помочь|ответить|выполнить|предоставить|создать)",
    r"как (?:ии|языковая модель|искусственный интеллект)\b.{0,80}не",
    # Chinese, Japanese, Korean
    rf"(?:很?抱歉|对不起|對不起){_PAUSE}(?:但)?我(?:无法|不能|無法)",
    r"作为(?:一个|一個|一名)?(?:人工智能|ai|语言模型)|作為(?:一個)?(?:人工智慧|ai|語言模型)",
    rf"(?:申し訳(?:ありません|ございません)|すみません){_PAUSE}.{{0,20}}(?:お答え|お手伝い|回答|対応)(?:することは|は)?でき(?:ません|かねます)",
    r"(?:ai|言語モデル)として.{0,40}(?:できません|ません)",
    rf"(?:죄송합니다|죄송하지만){_PAUSE}.{{0,30}}(?:도와드릴|답변할|답변드릴|제공할|도울) 수 없",
    r"(?:인공지능|ai|언어 모델)(?:으)?로서.{0,40}(?:없습니다|않습니다)",
)  # fmt: skip
_REFUSAL = re.compile(rf"[\s\"'*“(]{{0,4}}(?:{'|'.join(_PATTERNS)})", re.IGNORECASE)


def is_empty(text: str) -> bool:
    """True for a text without a letter, digit, emoji or currency sign, for a label alone, and for a placeholder."""
    if _WITH_CONTENT.search(text) is None:
        return True
    return len(text) < 500 and bool(_PLACEHOLDER.fullmatch(text) or _ONLY_A_LABEL.fullmatch(text))


def refusal(text: str) -> str | None:
    """The words with which a short answer declines, None where it does not."""
    if len(text) > MAX_REFUSAL_CHARS:
        return None
    found = _REFUSAL.match(text)
    return found[0].strip() if found else None
