"""LLM judges over any OpenAI-compatible endpoint: what is asked, how patiently, and how strictly a reply is read.

``mote.judges.llm`` itself needs no client library; ``client`` and ``panel`` need the extra ``judge`` (openai,
tenacity).
"""

from mote.judges.llm.endpoint import Endpoint, JudgeError
from mote.judges.llm.prompt import JudgePrompt, load_prompt

__all__ = ["Endpoint", "JudgeError", "JudgePrompt", "load_prompt"]
