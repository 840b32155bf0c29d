"""Small evals during training, called at a checkpoint: results item by item, and a training that they do not touch."""

from collectors.evals.inloop import evaluate
from collectors.evals.tasks import Exact, MultipleChoice, NextToken, Perplexity, Prompt, Question, Text

__all__ = ["Exact", "MultipleChoice", "NextToken", "Perplexity", "Prompt", "Question", "Text", "evaluate"]
