"""Words of the probe conversations that reveal what a chat template does, and the error of one that cannot render."""

QUESTION, PROBE = "probe question", "probe answer"
USER = {"role": "user", "content": QUESTION}


class RenderingError(ValueError):
    """A conversation that this template cannot render exactly; the text says why."""
